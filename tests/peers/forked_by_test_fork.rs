//! Empty tests in processes of test-fork's.

include!("many.rs");

ten! { ten! {
    #[test_fork::fork]
    #[test]
    fn empty() {}
} }
