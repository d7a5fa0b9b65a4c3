//! What `#[isolated]` can't see in a module.

use belljar::isolated;

macro_rules! tests {
    ($name:ident) => {
        #[test]
        fn $name() {}
    };
}

#[isolated]
mod macros {
    tests!(on_the_host);
    tests! { too }

    // There are none in it.
    thread_local!(static A: u8 = const { 1 });
}

#[isolated]
mod elsewhere {
    // The compiler has errors for this too.
    mod file;
}

#[isolated]
mod attributes {
    #[belljar_tests::body]
    fn perhaps() {}
}

/// Each makes a test by itself, although it has the name of something harmless.
#[isolated]
mod names {
    #[test_case::case(1)]
    fn a_case(_: u8) {}

    #[test_with::lock(one)]
    fn a_lock() {}

    #[fixture("pass/*.rs")]
    fn a_file(_: std::path::PathBuf) {}
}

#[isolated(timeout = "soon", nett)]
mod arguments {
    #[test]
    fn a() {}
}

#[isolated(uids = 8)]
mod together {
    use super::*;

    #[isolated(user = 9)]
    fn no_such_user() {}

    #[isolated(from = a)]
    fn other_root() {}
}

#[isolated]
struct NoModule;

fn main() {}
