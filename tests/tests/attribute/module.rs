//! What a module holds that the attribute is used in.

use super::assert_isolated;

/// The body sees what the module has, whatever the expansion may call its own things.
const SPEC: u32 = 1;
const TEST: u32 = 2;

#[belljar::isolated]
fn in_a_module() {
    assert_eq!(SPEC + TEST, 3);
    assert_isolated();
}

/// Nothing in scope has a usual name here.
mod hostile_names {
    mod core {}
    mod std {}
    #[expect(dead_code, reason = "to shadow the names of the prelude")]
    struct Option;
    #[expect(dead_code, reason = "to shadow the names of the prelude")]
    struct Some;

    #[belljar::isolated(timeout = "1m", hostname = "jar")]
    fn with_shadowed_names() {}
}
