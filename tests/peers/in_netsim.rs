//! Empty tests on machines of netsim's.

include!("many.rs");

ten! { ten! {
    #[test]
    #[netsim::isolate]
    fn empty() {}
} }
