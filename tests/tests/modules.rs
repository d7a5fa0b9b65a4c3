//! Modules whose tests are all isolated, whatever makes them tests.
#![deny(warnings, missing_docs, unused, clippy::all, clippy::pedantic)]
#![forbid(unsafe_code)]

use belljar::{isolated, prepared};
use nix::sys::statfs::{TMPFS_MAGIC, statfs};
use nix::unistd::{Pid, gethostname, getppid};

/// Every test here proves by this that it is isolated: its parent is the init of a pid namespace.
fn assert_isolated() {
    assert_eq!(getppid(), Pid::from_raw(1));
}

/// Whether this test has a root of its own: that is a tmpfs.
fn has_own_root() -> bool {
    statfs("/").expect("a root").filesystem_type() == TMPFS_MAGIC
}

fn hostname() -> String {
    gethostname().expect("a name").into_string().expect("UTF-8")
}

/// The twin: without the attribute above, the same tests run on the host.
mod plain {
    #[test]
    fn is_on_the_host() {
        assert!(belljar::whereabouts().is_none());
    }
}

#[isolated(hostname = "module", env = ["A=module", "B=module"])]
mod all {
    use super::*;

    /// No test: it stays what it is.
    fn helper() -> String {
        hostname()
    }

    #[derive(Debug, PartialEq)]
    struct Kept<const N: usize = { 1 }>([u8; N]);

    macro_rules! kept {
        () => {
            Kept([1])
        };
    }

    thread_local! {
        static HERE: u8 = const { 1 };
    }

    #[test]
    fn plain_test() {
        assert_isolated();
        assert!(has_own_root());
        assert_eq!((helper(), kept!(), HERE.with(|here| *here)), ("module".to_owned(), Kept([1]), 1));
    }

    #[core::prelude::v1::test]
    fn test_by_its_path() {
        assert_isolated();
    }

    #[test]
    #[should_panic(expected = "on purpose")]
    fn that_panics() {
        assert_isolated();
        panic!("on purpose");
    }

    #[test]
    #[ignore = "never run"]
    fn that_is_ignored() {
        unreachable!("it is ignored");
    }

    /// What it returns counts.
    #[test]
    #[expect(clippy::unnecessary_wraps, reason = "it stands between")]
    fn that_returns() -> Result<(), String> {
        assert_isolated();
        Ok(())
    }

    #[tokio::test]
    async fn of_a_runtime() {
        tokio::task::yield_now().await;
        assert_isolated();
    }

    #[cfg_attr(all(), test)]
    fn by_cfg_attr() {
        assert_isolated();
    }

    #[cfg_attr(all(), test, isolated(hostname = "own"))]
    fn own_by_cfg_attr() {
        assert_isolated();
        assert_eq!(hostname(), "own");
    }

    #[cfg(any())]
    #[test]
    fn that_is_not_there() {
        does_not_compile();
    }

    /// A test's own arguments are added, and override the module's.
    #[isolated(hostname = "own", env = ["B=own", "C=own"])]
    fn own_attribute() {
        let variables = ["A", "B", "C"].map(|name| std::env::var(name).expect("set"));
        assert_eq!(variables, ["module", "own", "own"]);
        assert_eq!(hostname(), "own");
        assert!(has_own_root());
    }

    /// A word takes nothing away from what the module has.
    #[test]
    #[isolated(net)]
    fn own_word() {
        assert_isolated();
        assert!(has_own_root());
        assert_eq!(hostname(), "module");
    }

    #[prepared(hostname = "prepared")]
    fn file() -> std::io::Result<()> {
        std::fs::write("/var/file", hostname())
    }

    #[isolated(from = file)]
    fn from_a_preparation() {
        assert_eq!(std::fs::read_to_string("/var/file").expect("read"), "prepared");
    }

    mod deeper {
        use super::*;

        #[test]
        fn inherits() {
            assert_isolated();
            assert_eq!(hostname(), "module");
        }

        #[isolated(hostname = "deepest", net)]
        mod deepest {
            use super::*;

            #[test]
            fn inherits() {
                assert_isolated();
                assert_eq!((hostname(), std::env::var("A").as_deref()), ("deepest".to_owned(), Ok("module")));
                assert!(has_own_root());
            }
        }
    }
}

/// Words of a module are for those of its tests too that have options of their own.
#[isolated(uts, hostname = "words")]
mod words {
    use super::*;

    #[test]
    fn of_the_module() {
        assert_isolated();
        assert!(!has_own_root());
    }

    #[isolated(hostname = "own")]
    fn of_the_module_with_an_option() {
        assert_eq!(hostname(), "own");
        assert!(!has_own_root());
    }

    #[isolated(mount)]
    fn more() {
        assert!(has_own_root());
    }

    /// Alone, the attribute has no less than elsewhere. The module's options stay.
    #[isolated]
    fn all_that_there_is() {
        assert!(has_own_root());
        assert_eq!(hostname(), "words");
    }

    #[isolated]
    mod wider {
        use super::*;

        #[test]
        fn than_the_module_around_it() {
            assert!(has_own_root());
            assert_eq!(hostname(), "words");
        }
    }
}

macro_rules! module {
    ($name:ident, $($item:item)*) => {
        #[isolated]
        mod $name {
            use super::*;
            $($item)*
        }
    };
}

module! {
    by_a_macro,
    #[test]
    fn in_a_module_that_a_macro_makes() {
        assert_isolated();
    }
    fn _helper() {}
}
