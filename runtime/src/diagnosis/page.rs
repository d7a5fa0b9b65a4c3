//! The page that a test prints when the host refuses its sandbox, and the doctor's table of such pages.

use nix::errno::Errno;

use super::cause::Cause;
use crate::cgroup::NoCgroup;
use crate::frame::Step;
use crate::terminal::Terminal;
use crate::text::{error, plain};

/// What is printed when the host can't make a sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Page {
    /// The step of the set-up, and what it was about.
    step: String,
    error: String,
    cause: Cause,
}

impl Page {
    pub(crate) fn new(step: Step, path: &str, errno: Errno, cause: Cause) -> Self {
        Self::of(step, path, error(errno), cause)
    }

    /// The same, when the limits that the test has written can't be kept.
    pub(crate) fn of_limits(trouble: &NoCgroup, cause: Cause) -> Self {
        let path = match trouble {
            NoCgroup::Missing(_) | NoCgroup::Ends { .. } => "".into(),
            NoCgroup::Foreign { path, .. } | NoCgroup::Refused { path, .. } => path.to_string_lossy(),
        };
        Self::of(Step::Cgroup, &path, trouble.to_string(), cause)
    }

    fn of(step: Step, path: &str, error: String, cause: Cause) -> Self {
        let place = match path {
            "" => String::new(),
            // A set-up path that is not absolute leads from the sandbox's root.
            path => format!(": /{}", plain(path.trim_start_matches('/'))),
        };
        let step = format!("{}{place}", step.what());
        Self { step, error, cause }
    }

    /// The same, when a sandbox could be made, and not even an empty test ran in it as it should.
    pub(crate) fn of_failure(text: &str, cause: Cause) -> Self {
        Self { step: "run an empty test".to_owned(), error: text.to_owned(), cause }
    }

    /// The same, when a sandbox could be made, and a device could not be opened in it.
    pub(crate) fn of_device(path: &str, errno: Errno, cause: Cause) -> Self {
        Self { step: format!("open the device: {path}"), error: error(errno), cause }
    }

    /// Each part, with its name.
    pub(crate) fn fields(&self) -> [(&'static str, &str); 5] {
        let Self { step, error, cause: Cause { why, seen, remedy } } = self;
        [("step", step), ("error", error), ("cause", why), ("seen", seen), ("remedy", remedy)]
    }

    /// All of it, where the host is to blame.
    pub(crate) fn in_full(&self, test: &str) -> String {
        did_not_run(test, &format!("this host does not let its sandbox be set up.{}", self.list("  ")))
    }

    /// All of it, where the test asks for what is not there.
    pub(crate) fn of_bad_request(&self, test: &str) -> String {
        did_not_run(test, &format!("what it asks for can't be had.{}", self.list("  ")))
    }

    /// All of it, where too much is in use.
    pub(crate) fn of_busy_host(&self, test: &str) -> String {
        did_not_run(test, &format!("its sandbox could not be set up at this moment.{}", self.list("  ")))
    }

    /// A line for each part.
    fn list(&self, indent: &str) -> String {
        self.list_as(indent, Terminal::NONE)
    }

    /// The same, as it looks where it is shown. The remedy stays on one line, so that it can be copied.
    fn list_as(&self, indent: &str, terminal: Terminal) -> String {
        let shown = |(name, text): (&str, &str)| {
            let head = format!("{:<8}", format!("{name}:"));
            match name {
                "remedy" => format!("\n{indent}{head}{}", terminal.strong(text)),
                _ => format!("\n{indent}{head}{}", terminal.wrapped(text, indent.len() + head.len())),
            }
        };
        self.fields().map(shown).concat()
    }

    /// One line, where the whole has been printed for the test `first`.
    pub(crate) fn in_short(&self, test: &str, first: &str) -> String {
        did_not_run(test, &format!("{}; the remedy: {} (as for `{first}`)", self.summary(), self.cause.remedy))
    }

    /// One line, for a test that was skipped.
    pub(crate) fn skipped(&self, test: &str) -> String {
        format!("belljar: skipped: `{test}`: {}; the remedy: {}", self.summary(), self.cause.remedy)
    }

    /// What the host refuses, and why.
    pub(crate) fn summary(&self) -> String {
        format!("could not {}: {}; the cause: {}", self.step, self.error, self.cause.why)
    }
}

/// What can be had, and what can't: what it is, how it is written, and why it can't be had.
pub(crate) fn table(rows: &[(&str, &str, Option<&Page>)], is_well: bool, terminal: Terminal) -> String {
    let width = rows.iter().map(|(name, ..)| name.chars().count()).max().unwrap_or_default();
    let mut told: Vec<(&Page, &str)> = Vec::new();
    let mut text = String::from("belljar: what this host lets sandboxes have\n");
    for (name, written, fault) in rows {
        let mark = if fault.is_none() { terminal.good("✓") } else { terminal.bad("✗") };
        text += &format!("  {mark} {name:<width$}  {written}\n");
        let Some(page) = fault else { continue };
        match told.iter().find(|(known, _)| known == page) {
            Some((_, first)) => text += &format!("      as for {first}\n"),
            None => {
                text += page.list_as("      ", terminal).trim_start_matches('\n');
                text.push('\n');
                told.push((page, name));
            }
        }
    }
    let sum = match is_well {
        true => terminal.good("Tests with `#[isolated]` run here."),
        false => terminal.bad("Tests with `#[isolated]` can't run here."),
    };
    text + &sum + "\n"
}

/// A test did not run, and this is why.
pub(crate) fn did_not_run(test: &str, why: &str) -> String {
    format!("belljar: `{test}` did not run: {why}")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use insta::assert_snapshot;

    use super::*;
    use crate::text::snapshots::page as side_by_side;

    fn cause() -> Cause {
        Cause { why: "WHY".into(), seen: "SEEN".into(), remedy: "REMEDY".into() }
    }

    #[test]
    fn pages_are_full_or_short() {
        let page = Page::new(Step::Mount, "tmp/a\n", Errno::EPERM, cause());
        let refused = NoCgroup::Refused { path: Path::new("/sys/fs/cgroup").into(), errno: Errno::EROFS };
        let ends = NoCgroup::Ends { unit: "ci.service".to_owned(), policy: "kill".to_owned() };
        let foreign = NoCgroup::Foreign {
            path: Path::new("/sys/fs/cgroup").into(),
            names: vec!["sh".to_owned(), "a\n".to_owned()],
        };
        let told = [
            ("in_full", page.in_full("tests::b")),
            ("of_bad_request", page.of_bad_request("tests::b")),
            ("of_busy_host", page.of_busy_host("tests::b")),
            ("in_short", page.in_short("tests::b", "tests::a")),
            ("skipped", page.skipped("tests::b")),
            ("summary", page.summary()),
            ("of_limits", Page::of_limits(&refused, cause()).summary()),
            ("of_limits", Page::of_limits(&ends, cause()).summary()),
            ("of_limits", Page::of_limits(&foreign, cause()).summary()),
            ("of_failure", Page::of_failure("TEXT", cause()).summary()),
            ("of_device", Page::of_device("/dev/fuse", Errno::ENOENT, cause()).summary()),
        ];
        assert_snapshot!(side_by_side(told), @r#"
        # in_full
        belljar: `tests::b` did not run: this host does not let its sandbox be set up.
          step:   mount a file system in the sandbox: /tmp/a\n
          error:  EPERM (Operation not permitted)
          cause:  WHY
          seen:   SEEN
          remedy: REMEDY
        # of_bad_request
        belljar: `tests::b` did not run: what it asks for can't be had.
          step:   mount a file system in the sandbox: /tmp/a\n
          error:  EPERM (Operation not permitted)
          cause:  WHY
          seen:   SEEN
          remedy: REMEDY
        # of_busy_host
        belljar: `tests::b` did not run: its sandbox could not be set up at this moment.
          step:   mount a file system in the sandbox: /tmp/a\n
          error:  EPERM (Operation not permitted)
          cause:  WHY
          seen:   SEEN
          remedy: REMEDY
        # in_short
        belljar: `tests::b` did not run: could not mount a file system in the sandbox: /tmp/a\n: EPERM (Operation not permitted); the cause: WHY; the remedy: REMEDY (as for `tests::a`)
        # skipped
        belljar: skipped: `tests::b`: could not mount a file system in the sandbox: /tmp/a\n: EPERM (Operation not permitted); the cause: WHY; the remedy: REMEDY
        # summary
        could not mount a file system in the sandbox: /tmp/a\n: EPERM (Operation not permitted); the cause: WHY
        # of_limits
        could not make a cgroup with the limits of the test: /sys/fs/cgroup: EROFS (Read-only file system); the cause: WHY
        # of_limits
        could not make a cgroup with the limits of the test: a test that is killed when its memory is used up would end `ci.service`, and the run in it; the cause: WHY
        # of_limits
        could not make a cgroup with the limits of the test: /sys/fs/cgroup: it holds processes that are not of this test run (`sh`, `a\n`), and so can't be divided; the cause: WHY
        # of_failure
        could not run an empty test: TEXT; the cause: WHY
        # of_device
        could not open the device: /dev/fuse: ENOENT (No such file or directory); the cause: WHY
        "#);
    }

    #[test]
    fn what_can_be_had_is_a_table() {
        let page = Page::new(Step::Clone, "", Errno::ENOSPC, cause());
        let other = Page::of_device("/dev/fuse", Errno::ENOENT, cause());
        let rows = [
            ("one", "ONE", None),
            ("two and more", "TWO", Some(&page)),
            ("three", "THREE", Some(&page)),
            ("four", "FOUR", Some(&other)),
        ];
        assert_snapshot!(table(&rows, true, Terminal::NONE), @"
        belljar: what this host lets sandboxes have
          ✓ one           ONE
          ✗ two and more  TWO
              step:   clone init into new user and pid namespaces
              error:  ENOSPC (No space left on device)
              cause:  WHY
              seen:   SEEN
              remedy: REMEDY
          ✗ three         THREE
              as for two and more
          ✗ four          FOUR
              step:   open the device: /dev/fuse
              error:  ENOENT (No such file or directory)
              cause:  WHY
              seen:   SEEN
              remedy: REMEDY
        Tests with `#[isolated]` run here.
        ");
        assert_snapshot!(table(&rows[1..2], false, Terminal::NONE), @"
        belljar: what this host lets sandboxes have
          ✗ two and more  TWO
              step:   clone init into new user and pid namespaces
              error:  ENOSPC (No space left on device)
              cause:  WHY
              seen:   SEEN
              remedy: REMEDY
        Tests with `#[isolated]` can't run here.
        ");
    }
    /// What goes to a terminal of 50 columns. The remedy is one line, however long.
    #[test]
    fn a_table_fits_its_terminal() {
        let words = "several words that take more than one line of a small terminal";
        let cause = Cause { why: words.into(), seen: "SEEN".into(), remedy: words.into() };
        let page = Page::new(Step::Clone, "", Errno::ENOSPC, cause);
        let terminal = Terminal { has_colours: true, columns: Some(50) };
        let text = table(&[("one", "ONE", None), ("two", "TWO", Some(&page))], false, terminal);
        assert_snapshot!(text.replace('\x1b', "ESC"), @"
        belljar: what this host lets sandboxes have
          ESC[32m✓ESC[0m one  ONE
          ESC[31m✗ESC[0m two  TWO
              step:   clone init into new user and pid
                      namespaces
              error:  ENOSPC (No space left on device)
              cause:  several words that take more than
                      one line of a small terminal
              seen:   SEEN
              remedy: ESC[1mseveral words that take more than one line of a small terminalESC[0m
        ESC[31mTests with `#[isolated]` can't run here.ESC[0m
        ");
    }
}
