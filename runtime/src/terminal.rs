//! How tables look where they are shown: in colours, and as wide as a terminal is.

use std::env;
use std::ffi::OsStr;
use std::io::IsTerminal;
use std::iter;
use std::os::fd::AsFd;

use crate::sys;

/// When there are colours, as the environment has it by the conventions of other programs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Colours {
    /// On a terminal.
    #[default]
    Terminal,
    Never,
    Always,
}

impl Colours {
    /// `of` returns the value of a variable. `NO_COLOR` comes before `CLICOLOR_FORCE`, and that before `CLICOLOR`.
    pub(crate) fn read<'v>(of: impl Fn(&str) -> Option<&'v OsStr>) -> Self {
        let is_set = |name| of(name).is_some_and(|value| !value.is_empty());
        let is = |name, wanted: &str| of(name).is_some_and(|value| value == wanted);
        if is_set("NO_COLOR") {
            Self::Never
        } else if is_set("CLICOLOR_FORCE") && !is("CLICOLOR_FORCE", "0") {
            Self::Always
        } else if is("CLICOLOR", "0") || is("TERM", "dumb") {
            Self::Never
        } else {
            Self::Terminal
        }
    }
}

/// How text looks in one place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Terminal {
    pub(crate) has_colours: bool,
    /// How many characters a line has, if there is an end to it.
    pub(crate) columns: Option<usize>,
}

/// Narrower than this, a table is not made.
const NARROWEST: usize = 40;

impl Terminal {
    /// What is written to a file, or returned as text.
    pub(crate) const NONE: Self = Self { has_colours: false, columns: None };

    /// What this stream shows.
    pub(crate) fn of(stream: &(impl IsTerminal + AsFd), colours: Colours) -> Self {
        let is_terminal = stream.is_terminal();
        let has_colours = colours == Colours::Always || colours == Colours::Terminal && is_terminal;
        let columns = if is_terminal { sys::columns(stream.as_fd()) } else { None };
        Self { has_colours, columns: columns.map(|columns| columns.max(NARROWEST)) }
    }

    fn painted(self, sequence: &str, text: &str) -> String {
        if self.has_colours { format!("\x1b[{sequence}m{text}\x1b[0m") } else { text.to_owned() }
    }

    pub(crate) fn good(self, text: &str) -> String {
        self.painted("32", text)
    }

    pub(crate) fn bad(self, text: &str) -> String {
        self.painted("31", text)
    }

    pub(crate) fn strong(self, text: &str) -> String {
        self.painted("1", text)
    }

    /// Breaks `text` between words, so that it fits to the right of `indent` columns: all lines but the first begin with them.
    pub(crate) fn wrapped(self, text: &str, indent: usize) -> String {
        let Some(columns) = self.columns else { return text.to_owned() };
        let room = columns.saturating_sub(indent).max(NARROWEST / 2);
        let mut lines = vec![String::new()];
        for word in text.split(' ') {
            let line = lines.last().map(|line| line.chars().count()).unwrap_or_default();
            let is_first = line == 0;
            if !is_first && line + 1 + word.chars().count() > room {
                lines.push(word.to_owned());
            } else if let Some(last) = lines.last_mut() {
                last.extend(iter::once(' ').filter(|_| !is_first));
                last.push_str(word);
            }
        }
        lines.join(&format!("\n{:indent$}", ""))
    }

    /// Leaves out the beginning of `name`, so that it has at most `room` characters.
    pub(crate) fn shortened(name: &str, room: usize) -> String {
        let length = name.chars().count();
        if length <= room {
            return name.to_owned();
        }
        iter::once('…').chain(name.chars().skip(length + 1 - room.max(1))).collect()
    }
}

/// What the environment of this process says.
pub(crate) fn colours() -> Colours {
    let known = ["NO_COLOR", "CLICOLOR_FORCE", "CLICOLOR", "TERM"].map(|name| (name, env::var_os(name)));
    Colours::read(|name| known.iter().find(|(known, _)| *known == name).and_then(|(_, value)| value.as_deref()))
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use insta::assert_snapshot;

    use super::*;

    #[test]
    fn conventions_are_kept() {
        let read = |variables: &[(&str, &'static str)]| {
            Colours::read(|name| {
                variables.iter().find(|(known, _)| *known == name).map(|(_, value)| OsStr::new(*value))
            })
        };
        for (variables, expected) in [
            (&[][..], Colours::Terminal),
            (&[("TERM", "xterm"), ("CLICOLOR", "1")], Colours::Terminal),
            (&[("NO_COLOR", "")], Colours::Terminal),
            (&[("NO_COLOR", "1"), ("CLICOLOR_FORCE", "1")], Colours::Never),
            (&[("CLICOLOR", "0"), ("CLICOLOR_FORCE", "1")], Colours::Always),
            (&[("CLICOLOR_FORCE", "0")], Colours::Terminal),
            (&[("CLICOLOR", "0")], Colours::Never),
            (&[("TERM", "dumb")], Colours::Never),
        ] {
            assert_eq!(read(variables), expected, "{variables:?}");
        }
    }

    #[test]
    fn a_file_is_no_terminal() {
        let file = File::open("/dev/null").expect("open");
        assert_eq!(Terminal::of(&file, Colours::Terminal), Terminal::NONE);
        assert_eq!(Terminal::of(&file, Colours::Always), Terminal { has_colours: true, columns: None });
    }

    #[test]
    fn lines_are_broken_between_words() {
        let terminal = Terminal { has_colours: false, columns: Some(40) };
        let text = "what is too long for one line goes on in the next, and a-word-that-is-longer-than-all-of-a-line stays whole";
        assert_snapshot!(terminal.wrapped(text, 14), @"
        what is too long for one
                      line goes on in the next,
                      and
                      a-word-that-is-longer-than-all-of-a-line
                      stays whole
        ");
        assert_eq!(Terminal::NONE.wrapped(text, 14), text);
        assert_eq!(terminal.wrapped("", 14), "");
    }

    #[test]
    fn names_keep_their_ends() {
        assert_eq!(["abc", "abcd", "äbcdef"].map(|name| Terminal::shortened(name, 3)), ["abc", "…cd", "…ef"]);
        assert_eq!(Terminal::shortened("abc", 0), "…");
    }
}
