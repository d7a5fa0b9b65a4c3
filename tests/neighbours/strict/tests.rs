//! A crate as strict as they come, in which belljar has another name.
#![forbid(unsafe_code)]
#![deny(warnings, missing_docs, unused, rust_2018_idioms, unreachable_pub)]

use glass::isolated;

/// Who the parent is: the init of a pid namespace, in a sandbox.
fn parent() -> u32 {
    std::os::unix::process::parent_id()
}

#[isolated(crate = glass)]
fn by_itself() {
    assert_eq!(parent(), 1);
}

#[test]
#[isolated(crate = glass)]
fn below_test() {
    assert_eq!(parent(), 1);
}

#[isolated(crate = glass, net)]
#[test]
fn above_test() -> Result<(), std::num::ParseIntError> {
    assert_eq!(parent(), "1".parse::<u32>()?);
    Ok(())
}

#[glass::isolated(crate = glass, timeout = "1m", hostname = "jar", env = ["A=b"])]
#[should_panic(expected = "on purpose")]
fn with_options() {
    assert_eq!(std::env::var("A").as_deref(), Ok("b"));
    panic!("on purpose");
}

#[isolated(crate = glass)]
#[ignore = "on purpose"]
fn ignored() {
    unreachable!();
}

#[cfg_attr(all(), isolated(crate = glass))]
#[allow(clippy::needless_pass_by_value)]
fn by_cfg_attr() {
    assert_eq!(parent(), 1);
}

macro_rules! made {
    ($($(#[$meta:meta])* $name:ident),*) => {
        $($(#[$meta])*
        #[isolated(crate = glass)]
        fn $name() {
            assert_eq!(parent(), 1);
        })*
    };
}

made!(
    by_a_macro,
    /// Documented.
    by_the_same_macro
);

mod module {
    fn twice<T: Copy + std::ops::Add<Output = T>>(value: T) -> T {
        value + value
    }

    #[glass::isolated(crate = glass)]
    fn in_a_module() {
        assert_eq!(twice(1), 2);
    }
}
