//! Empty tests in sandboxes of belljar's.

include!("many.rs");

ten! { ten! {
    #[belljar::isolated]
    fn empty() {}
} }
