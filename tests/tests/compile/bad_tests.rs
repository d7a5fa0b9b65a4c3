//! Compiled by `compile`, as tests: these errors come when the compiler knows types, or makes tests.
use belljar::isolated;

#[isolated]
fn with_a_number() -> u32 {
    5
}

struct WithoutDebug;

#[isolated(net)]
#[test]
fn with_an_error_that_cant_be_shown() -> Result<(), WithoutDebug> {
    Err(WithoutDebug)
}

#[isolated]
extern "C" fn with_another_abi() -> Option<()> {
    None
}

impl WithoutDebug {
    #[isolated]
    fn in_an_impl() {}
}
