//! Empty tests in processes of rusty-fork's.

include!("many.rs");

ten! { ten! {
    use rusty_fork::rusty_fork_test;

    rusty_fork_test! {
        #[test]
        fn empty() {}
    }
} }
