//! What somebody may have meant who wrote something else.

use proc_macro2::Span;
use syn::Error;

/// `what` is no value here. If another is near, the error says that first, and the rule for all values below.
pub(super) fn bad_value(span: Span, what: &str, near: Option<String>, rule: &str) -> Error {
    let text = match near {
        Some(near) => format!("{what}: did you mean {near:?}?\n\n{rule}"),
        None => format!("{what}: {rule}"),
    };
    Error::new(span, text)
}

/// The one of `names` that `text` may be meant for: it differs by few letters, or one of them begins with the other.
pub(super) fn nearest<'n>(text: &str, names: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    let far = usize::MAX;
    let rank = |name: &str| {
        let distance = distance(text, name);
        let is_near = distance <= (name.len() / 3).max(1);
        let is_prefix = text.len() > 2 && (text.starts_with(name) || name.starts_with(text));
        (is_near || is_prefix).then_some((if is_near { distance } else { far }, !is_prefix, distance))
    };
    let ranked = names.into_iter().filter_map(|name| rank(name).map(|rank| (rank, name)));
    ranked.min_by_key(|(rank, _)| *rank).map(|(_, name)| name)
}

/// How many letters must be added, removed, replaced or swapped with the next one to come from one text to the other.
pub(super) fn distance(from: &str, to: &str) -> usize {
    let (from, to): (Vec<_>, Vec<_>) = (from.chars().collect(), to.chars().collect());
    // In row `i` and column `j`: the distance between the first `i` and the first `j` letters.
    let mut rows: Vec<Vec<usize>> = Vec::new();
    for i in 0..=from.len() {
        let mut row: Vec<usize> = Vec::new();
        for j in 0..=to.len() {
            row.push(match (i.checked_sub(1), j.checked_sub(1)) {
                (None, _) => j,
                (_, None) => i,
                (Some(a), Some(b)) => {
                    let is_swap = a > 0 && b > 0 && from[a] == to[b - 1] && from[a - 1] == to[b];
                    let swapped = if is_swap { rows[a - 1][b - 1] } else { usize::MAX - 1 };
                    let added_or_removed = rows[a][j].min(row[b]);
                    let replaced = rows[a][b] + usize::from(from[a] != to[b]);
                    replaced.min(added_or_removed.min(swapped) + 1)
                }
            });
        }
        rows.push(row);
    }
    rows.last().and_then(|row| row.last()).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::names;
    use super::nearest;

    #[test]
    fn what_is_near_is_found() {
        for (text, near) in [
            ("tiemout", Some("timeout")),
            ("time_out", Some("timeout")),
            ("nett", Some("net")),
            ("ent", Some("net")),
            ("network", Some("net")),
            ("moutn", Some("mount")),
            ("mounts", Some("mount")),
            ("mem", Some("memory")),
            ("uid", Some("uids")),
            ("cpus", Some("cpu")),
            ("binds", Some("bind")),
            ("clearenv", Some("clear_env")),
            ("boot_time", Some("boottime")),
            ("n", None),
            ("", None),
            ("frobnicate", None),
            ("capabilities", None),
        ] {
            assert_eq!(nearest(text, names()), near, "{text}");
        }
    }
}
