//! What a failure is to say of the wires of a test's laboratories.

use std::fs::File;

use super::wire::WireTrouble;

/// What is to be said of the numbers that a test's process and its wires have left in this memory, and of so many wires that were killed; and how
/// many laboratories there were. What the body has written there instead may be anything.
pub(crate) fn trouble(memory: Option<&File>, killed: u32) -> (Vec<String>, u64) {
    let trouble = memory.and_then(|memory| WireTrouble::read(memory).ok()).unwrap_or_default();
    (words(&trouble, killed), trouble.laboratories)
}

fn words(trouble: &WireTrouble, killed: u32) -> Vec<String> {
    let WireTrouble { laboratories, overruns, too_large, late, latest, no_room, refused, forgotten, unanswered } =
        *trouble;
    let one_or = |several: &str| if laboratories > 1 { several.to_owned() } else { "its laboratory".to_owned() };
    let its = one_or(&format!("its {laboratories} laboratories"));
    let mut words = Vec::new();
    if killed > 0 {
        let of = one_or("one of its laboratories");
        words.push(match killed {
            1 => format!("the wire of {of} was killed, so that nothing passed any more. `kill(-1, ..)` hits it too."),
            _ => format!("{killed} wires of {its} were killed, so that nothing passed there any more. `kill(-1, ..)` hits them too."),
        });
    }
    let lost = [overruns, too_large, no_room, refused].into_iter().fold(0, u64::saturating_add);
    if lost > 0 {
        words.push(format!(
            "{lost} packets of {its} were lost for reasons other than the faults: {overruns} came faster than the wire could take them, \
             {too_large} were too large, {no_room} found no room to wait, {refused} were refused by the kernel."
        ));
    }
    if unanswered > 0 {
        words.push(format!(
            "the wire of {} did not run for some seconds, {}: what was set or counted then may be for other packets. \
             Something stopped it, or the machine was too busy.",
            one_or("one of its laboratories"),
            if unanswered == 1 { "once".to_owned() } else { format!("{unanswered} times") }
        ));
    }
    if late > 0 {
        let latest = latest / 1_000_000;
        words.push(format!("{late} packets of {its} left too late, by up to {latest} ms: the machine was too busy."));
    }
    if forgotten > 0 {
        words.push(format!(
            "{its} had too many flows at a time: {forgotten} were forgotten, and count from the beginning."
        ));
    }
    words
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::*;

    #[test]
    fn trouble_has_words() {
        assert_eq!(words(&WireTrouble::default(), 0), [""; 0]);
        let [overruns, too_large, no_room, refused, forgotten] = [1, 2, 3, 4, 5];
        let (laboratories, late, latest, unanswered) = (1, 6, 7_654_321, 8);
        let trouble =
            WireTrouble { laboratories, overruns, too_large, late, latest, no_room, refused, forgotten, unanswered };
        assert_snapshot!(words(&trouble, 1).join("\n"), @r#"
        the wire of its laboratory was killed, so that nothing passed any more. `kill(-1, ..)` hits it too.
        10 packets of its laboratory were lost for reasons other than the faults: 1 came faster than the wire could take them, 2 were too large, 3 found no room to wait, 4 were refused by the kernel.
        the wire of its laboratory did not run for some seconds, 8 times: what was set or counted then may be for other packets. Something stopped it, or the machine was too busy.
        6 packets of its laboratory left too late, by up to 7 ms: the machine was too busy.
        its laboratory had too many flows at a time: 5 were forgotten, and count from the beginning.
        "#);
        assert_snapshot!(words(&WireTrouble { laboratories: 3, ..trouble }, 1).join("\n"), @r#"
        the wire of one of its laboratories was killed, so that nothing passed any more. `kill(-1, ..)` hits it too.
        10 packets of its 3 laboratories were lost for reasons other than the faults: 1 came faster than the wire could take them, 2 were too large, 3 found no room to wait, 4 were refused by the kernel.
        the wire of one of its laboratories did not run for some seconds, 8 times: what was set or counted then may be for other packets. Something stopped it, or the machine was too busy.
        6 packets of its 3 laboratories left too late, by up to 7 ms: the machine was too busy.
        its 3 laboratories had too many flows at a time: 5 were forgotten, and count from the beginning.
        "#);
        let two = words(&WireTrouble { laboratories: 3, ..WireTrouble::default() }, 2);
        assert_snapshot!(two.join("\n"), @"2 wires of its 3 laboratories were killed, so that nothing passed there any more. `kill(-1, ..)` hits them too.");
    }
}
