//! How messages show an error, a size, and text that a test has chosen.

use std::any::Any;
use std::fmt::{self, Display, Formatter};

use nix::errno::Errno;

use crate::collect::CollectVec as _;

/// The error as the C headers name it and as a person reads it.
pub(crate) fn error(errno: Errno) -> String {
    format!("{errno:?} ({})", errno.desc())
}

/// The same, and which limit to raise, if there are as many processes or open files as there may be.
pub(crate) fn error_with_limit(errno: Errno) -> String {
    let raise = match errno {
        // pthread_create(3) has the same error where there is no memory for a stack.
        Errno::EAGAIN => {
            ": perhaps there are as many processes and threads as there may be, or there is no memory for one more. For more, raise \
             the limit (`ulimit -u`, or the test's `pids`)"
        }
        Errno::EMFILE => ": this process has as many open files as it may have. Raise the limit (`ulimit -n`)",
        _ => "",
    };
    format!("{}{raise}", error(errno))
}

/// What a test has chosen, a path or a name, so that it can neither look like another line nor control a terminal.
pub(crate) fn plain(text: impl Display) -> String {
    let escape = |char: char| if char.is_control() { char.escape_default().to_string() } else { char.to_string() };
    text.to_string().chars().map(escape).collect()
}

/// The text that a panic has, if it has one.
pub(crate) fn of_panic(payload: &(dyn Any + Send)) -> Option<&str> {
    payload.downcast_ref::<&str>().copied().or(payload.downcast_ref::<String>().map(String::as_str))
}

/// How many letters must be added, removed or replaced to come from one word to the other (Levenshtein's distance). Capital letters
/// are as good as small ones.
pub(crate) fn distance(from: &[u8], to: &[u8]) -> usize {
    // The distances between what was looked at of `from` and each beginning of `to`.
    let mut row: Vec<usize> = (0..=to.len()).collect_vec();
    for (i, a) in from.iter().enumerate() {
        let mut before = i;
        row[0] = i + 1;
        for (j, b) in to.iter().enumerate() {
            let replaced = before + usize::from(!a.eq_ignore_ascii_case(b));
            before = row[j + 1];
            row[j + 1] = replaced.min(before + 1).min(row[j] + 1);
        }
    }
    row[to.len()]
}

/// A number of bytes, in the largest unit that it is at least one of.
pub(crate) struct Size(pub(crate) u64);

impl Display for Size {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self(bytes) = *self;
        if bytes < 0x400 {
            return write!(f, "{bytes} B");
        }
        // Rounded.
        let tenths = |shift: u32| (u128::from(bytes) * 10 + (1 << (shift - 1))) >> shift;
        let units = [("KiB", 10), ("MiB", 20), ("GiB", 30)].map(|(unit, shift)| (unit, tenths(shift)));
        let fits = units.into_iter().find(|(_, tenths)| *tenths < 10 * 1024);
        let [.., largest] = units;
        let (unit, tenths) = fits.unwrap_or(largest);
        match tenths % 10 {
            0 => write!(f, "{} {unit}", tenths / 10),
            tenth => write!(f, "{}.{tenth} {unit}", tenths / 10),
        }
    }
}

/// What messages say, for snapshots.
#[cfg(test)]
pub(crate) mod snapshots {
    /// Calls these functions of `$of`, and pairs the name of each with what it returns.
    macro_rules! told {
        ($of:ident::[$($function:ident($($arguments:tt)*)),* $(,)?]) => {
            vec![$((stringify!($function), $of::$function($($arguments)*).into())),*]
        };
    }
    pub(crate) use told;

    /// Each text below its name.
    pub(crate) fn page<'t>(told: impl IntoIterator<Item = (&'t str, String)>) -> String {
        told.into_iter().map(|(name, text)| format!("# {name}\n{}\n", text.trim_matches('\n'))).collect()
    }

    /// The functions that others can call in `source`, and that are not among `names`.
    pub(crate) fn lacking<'s>(source: &'s str, names: &[&str]) -> Vec<&'s str> {
        let functions = source.lines().filter_map(|line| line.trim_start().strip_prefix("pub(")?.split_once(") fn "));
        let functions = functions.filter_map(|(_, rest)| rest.split(['(', '<']).next());
        functions.filter(|name| !names.contains(name)).collect()
    }
}
