//! Empty tests, with nothing around them.

include!("many.rs");

ten! { ten! {
    #[test]
    fn empty() {}
} }
