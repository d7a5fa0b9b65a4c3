//! Which paths a fault is for.

use std::path::{Component, Path, PathBuf};

/// The most bytes that a pattern has.
pub(super) const LENGTH_MAX: usize = 1024;

/// Whether `path` is what the pattern means: `*` and `?` stand for any bytes and for one byte, but for slashes, and `**` stands for any bytes.
/// A pattern that doesn't begin with a slash means the end of a path.
pub(crate) fn matches(pattern: &[u8], path: &[u8]) -> bool {
    if pattern.first() == Some(&b'/') || pattern.starts_with(b"**") {
        return matches_whole(pattern, path);
    }
    let begins = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at + 1);
    std::iter::once(0).chain(begins).any(|begin| matches_whole(pattern, path.get(begin..).unwrap_or_default()))
}

/// Most paths differ before the first wildcard, and are done with then. From there on, it is kept for each place in the path whether the pattern may
/// have come there: it takes time that is bounded by the product of lengths.
fn matches_whole(pattern: &[u8], path: &[u8]) -> bool {
    let wildcard = pattern.iter().position(|byte| matches!(byte, b'*' | b'?')).unwrap_or(pattern.len());
    let (literal, mut rest) = pattern.split_at(wildcard);
    let Some(path) = path.strip_prefix(literal) else { return false };
    if rest.is_empty() {
        return path.is_empty();
    }
    let mut reached = vec![false; path.len() + 1];
    reached[0] = true;
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        if *byte == b'*' {
            let is_double = after.first() == Some(&b'*');
            rest = if is_double { &after[1..] } else { after };
            for at in 0..path.len() {
                reached[at + 1] |= reached[at] && (is_double || path[at] != b'/');
            }
            continue;
        }
        for at in (0..path.len()).rev() {
            let is_like = if *byte == b'?' { path[at] != b'/' } else { path[at] == *byte };
            reached[at + 1] = reached[at] && is_like;
        }
        reached[0] = false;
    }
    reached.last() == Some(&true)
}

/// The path that begins with a slash and means the same, without `.`, `..` and slashes that mean nothing. Links in it stay.
pub(crate) fn absolute(base: &Path, path: &Path) -> PathBuf {
    let mut whole = PathBuf::from("/");
    for component in base.components().chain(path.components()) {
        match component {
            // In what is not from the base, it begins anew.
            Component::RootDir => whole = PathBuf::from("/"),
            Component::ParentDir => {
                whole.pop();
            }
            Component::Normal(name) => whole.push(name),
            Component::CurDir | Component::Prefix(_) => {}
        }
    }
    whole
}

/// Whether there is a root with which [`below`] returns a path that matches, though `path` itself does not. The root makes a difference only to
/// patterns that begin with a slash.
pub(crate) fn may_match_below(pattern: &[u8], path: &[u8]) -> bool {
    let slashes = path.iter().enumerate().skip(1).filter(|(_, byte)| **byte == b'/');
    pattern.first() == Some(&b'/') && slashes.map(|(at, _)| at).any(|at| matches_whole(pattern, &path[at..]))
}

/// What a process sees of a path whose root is elsewhere. `None` if it is not below that.
pub(crate) fn below<'p>(root: &[u8], path: &'p [u8]) -> Option<&'p [u8]> {
    if root == b"/" {
        return None;
    }
    path.strip_prefix(root).filter(|rest| rest.first() == Some(&b'/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_paths() {
        let cases = [
            ("/data/wal", "/data/wal", true),
            ("/data/wal", "/data/wal2", false),
            ("/data/*", "/data/wal", true),
            ("/data/*", "/data/", true),
            ("/data/*", "/data/a/wal", false),
            ("/data/**", "/data/a/wal", true),
            ("/data/**/wal", "/data/a/b/wal", true),
            ("/d?ta/*.l?g", "/data/a.log", true),
            ("/d?ta/x", "/d/ta/x", false),
            ("wal", "/data/wal", true),
            ("wal", "/data/awal", false),
            ("a/wal", "/data/a/wal", true),
            ("*.log", "/data/a.log", true),
            ("*.log", "/data.log/a", false),
            ("**.log", "/data/a.log", true),
            ("/*a*a*a*a*b", "/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", false),
            ("", "", true),
            ("", "/a", false),
            ("/", "/", true),
        ];
        for (pattern, path, expected) in cases {
            assert_eq!(matches(pattern.as_bytes(), path.as_bytes()), expected, "{pattern} {path}");
        }
    }

    #[test]
    fn paths_become_absolute() {
        let absolute = |base, path| absolute(Path::new(base), Path::new(path)).display().to_string();
        assert_eq!(absolute("/a/b", "c"), "/a/b/c");
        assert_eq!(absolute("/a/b", "../c/./d"), "/a/c/d");
        assert_eq!(absolute("/a/b", "/c//d/"), "/c/d");
        assert_eq!(absolute("/", "../../x"), "/x");
        assert_eq!(absolute("/a", ""), "/a");
    }

    #[test]
    fn a_root_may_be_elsewhere() {
        assert_eq!(below(b"/jail", b"/jail/data"), Some(&b"/data"[..]));
        assert_eq!(below(b"/jail", b"/jailer/data"), None);
        assert_eq!(below(b"/", b"/data"), None);
    }

    /// The root is not looked at for nothing, and never missed.
    #[test]
    fn a_root_is_looked_at_if_it_may_matter() {
        let patterns = [
            "/data/*",
            "/d?ta/wal",
            "/wal",
            "/**/wal",
            "wal",
            "data/*",
            "*",
            "**wal",
            "**",
            "",
            "/",
            "?wal",
            "/jail/*",
        ];
        let paths = [
            "/jail/data/wal",
            "/jail/a/wal",
            "/data/wal",
            "/jail",
            "/",
            "pipe:[1]",
            "/a/data/wal/",
            "/jail/wal (deleted)",
        ];
        for (pattern, path) in
            patterns.iter().flat_map(|pattern| paths.map(|path| (pattern.as_bytes(), path.as_bytes())))
        {
            let roots = (0..=path.len()).map(|end| &path[..end]).filter(|root| !root.is_empty());
            let is_of_some_root = roots.filter_map(|root| below(root, path)).any(|path| matches(pattern, path));
            let (is_looked_at, matches) = (may_match_below(pattern, path), matches(pattern, path));
            let case = format!("{} {}", pattern.escape_ascii(), path.escape_ascii());
            assert_eq!(matches || is_looked_at, matches || is_of_some_root, "{case}");
        }
        assert!(!may_match_below(b"/other/*", b"/data/wal"));
    }
}
