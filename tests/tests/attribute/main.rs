//! What the attribute makes of functions, in a crate as strict as they come. Each test is listed and run once.
#![deny(warnings, missing_docs, unused, clippy::all, clippy::pedantic)]
#![forbid(unsafe_code)]

mod module;
mod renamed;

use belljar::isolated;
use belljar_tests::{body, this_binary};
use nix::unistd::{Pid, getppid};

belljar_tests::bodies!();

/// Every test here proves by this that it is isolated: its parent is the init of a pid namespace.
fn assert_isolated() {
    assert_eq!(getppid(), Pid::from_raw(1));
}

#[isolated]
fn bare() {
    assert_isolated();
}

#[isolated()]
fn with_empty_parentheses() {
    assert_isolated();
}

#[belljar::isolated(net, mount, timeout = "1m")]
fn by_its_path() {
    assert_isolated();
}

#[isolated]
#[test]
fn above_test() {
    assert_isolated();
}

#[test]
#[isolated]
fn below_test() {
    assert_isolated();
}

/// What stands between is not in the way.
#[core::prelude::v1::test]
// #[isolated]
#[expect(clippy::unnecessary_wraps, reason = "it stands between")]
/* #[isolated] ] */
#[isolated(net)]
/// Documented below.
pub(crate) fn far_below_test() -> Result<(), String> {
    assert_isolated();
    Ok(())
}

#[cfg_attr(all(), test)]
#[isolated]
fn below_a_test_by_cfg_attr() {
    assert_isolated();
}

#[cfg_attr(any(), test)]
#[isolated]
fn below_no_test_by_cfg_attr() {
    assert_isolated();
}

#[isolated]
#[cfg_attr(all(), test)]
fn above_a_test_by_cfg_attr() {
    assert_isolated();
}

#[cfg_attr(all(), test, isolated)]
fn by_cfg_attr_with_test() {
    assert_isolated();
}

#[cfg_attr(all(), cfg_attr(all(), test, isolated))]
fn by_two_cfg_attrs() {
    assert_isolated();
}

#[r#test]
#[isolated]
fn below_a_raw_test() {
    assert_isolated();
}

#[cfg_attr(all(), isolated(net))]
fn by_cfg_attr() {
    assert_isolated();
}

#[isolated]
#[tokio::test]
async fn above_a_runtime() {
    tokio::task::yield_now().await;
    assert_isolated();
}

#[tokio::test]
#[isolated]
async fn below_a_runtime() {
    tokio::task::yield_now().await;
    assert_isolated();
}

#[isolated(net, hostname = "jar", timeout = "90s")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn above_a_runtime_with_arguments() {
    let hostname = tokio::spawn(async { nix::unistd::gethostname() }).await.expect("join");
    assert_eq!(hostname.expect("gethostname"), "jar");
    assert_isolated();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[isolated(net, hostname = "jar")]
async fn below_a_runtime_with_arguments() {
    let hostname = tokio::spawn(async { nix::unistd::gethostname() }).await.expect("join");
    assert_eq!(hostname.expect("gethostname"), "jar");
    assert_isolated();
}

mod with_a_runtime_by_a_short_name {
    use super::assert_isolated;
    use tokio::test;

    #[belljar::isolated]
    #[test]
    async fn above_it() {
        assert_isolated();
    }

    #[test]
    #[belljar::isolated]
    async fn below_it() {
        assert_isolated();
    }
}

#[isolated]
#[should_panic(expected = "on purpose")]
#[expect(clippy::manual_assert, reason = "attributes pass")]
fn with_other_attributes() {
    /// Items in the body are none of our business.
    const REASON: &str = "on purpose";
    if getppid() == Pid::from_raw(1) {
        panic!("{REASON}");
    }
}

#[should_panic(expected = "below")]
#[isolated]
fn below_should_panic() {
    assert_isolated();
    panic!("below");
}

#[isolated]
#[ignore = "on purpose"]
fn ignored() {
    unreachable!();
}

#[isolated]
#[cfg_attr(all(), ignore = "on purpose")]
fn ignored_by_cfg_attr() {
    unreachable!();
}

#[isolated]
fn with_a_result() -> Result<(), std::num::ParseIntError> {
    assert_isolated();
    let answer: u32 = "42".parse()?;
    assert_eq!(answer, 42);
    Ok(())
}

#[isolated]
fn with_a_return() {
    assert_isolated();
    if std::process::id() == 2 {
        return;
    }
    unreachable!();
}

#[isolated]
#[should_panic(expected = "never")]
fn that_never_returns() -> ! {
    panic!("never");
}

#[isolated]
fn r#match() {
    assert_isolated();
}

/// The harness writes `r#` before keywords alone, and so does belljar.
#[isolated]
fn r#union() {
    assert_eq!(belljar::whereabouts().expect("a sandbox").test, concat!(module_path!(), "::union"));
    assert_eq!(std::thread::current().name(), Some("union"));
}

mod r#mod {
    #[belljar::isolated]
    fn r#type() {
        assert_eq!(belljar::whereabouts().expect("a sandbox").test, concat!(module_path!(), "::r#type"));
        assert_eq!(std::thread::current().name(), Some("r#mod::r#type"));
    }
}

#[isolated]
fn calls_itself() {
    use std::sync::atomic::{AtomicU32, Ordering};
    static DEPTH: AtomicU32 = AtomicU32::new(0);
    assert_isolated();
    if DEPTH.fetch_add(1, Ordering::Relaxed) < 3 {
        calls_itself();
    }
    assert_eq!(DEPTH.load(Ordering::Relaxed), 4);
}

#[isolated]
fn with_inner_attributes() {
    //! Documented inside.
    #![expect(clippy::no_effect_underscore_binding, reason = "as in any function")]
    let _nothing = 1;
    assert_isolated();
}

#[isolated]
extern "C" fn with_another_abi() {
    assert_isolated();
}

/// A documented test.
#[isolated]
pub fn that_is_public() {
    assert_isolated();
}

macro_rules! made {
    ($($name:ident => $value:expr),* $(,)?) => {
        $(#[isolated(net)]
        fn $name() {
            assert_eq!($value, 2);
            assert_isolated();
        })*
    };
}

made!(by_a_macro => 1 + 1, by_the_same_macro => 4 / 2);

macro_rules! made_of_values {
    ($name:ident: $timeout:literal $pids:expr, $user:expr, $path:expr, $variable:literal, $krate:path, $body:block) => {
        #[isolated(
            timeout = $timeout, pids = $pids, user = $user, bind = [$path], env = [$variable, "B=c"], crate = $krate
        )]
        #[cfg_attr(any(), ignore)]
        fn $name() $body
    };
}

made_of_values!(by_a_macro_with_values: "1m" 1024, "7:8", "Cargo.toml:/manifest", "A=b", belljar, {
    assert_eq!(std::env::var("A").as_deref(), Ok("b"));
    assert_eq!(nix::unistd::getgid().as_raw(), 8);
    assert_isolated();
});

macro_rules! made_of_lists {
    ($name:ident $binds:expr, $env:expr, $tmpfs:literal) => {
        #[isolated(bind = $binds, env = $env, tmpfs = $tmpfs)]
        fn $name() {
            assert_eq!(std::env::var("A").as_deref(), Ok("b"));
            assert_isolated();
        }
    };
}

made_of_lists!(by_a_macro_with_lists["Cargo.toml:/manifest"], ["A=b"], "8MiB");

macro_rules! made_below_test {
    ($name:ident) => {
        #[test]
        #[isolated]
        fn $name() {
            assert_isolated();
        }
    };
}

made_below_test!(by_a_macro_with_test);

macro_rules! passed_on {
    ($($item:item)*) => {
        $($item)*
    };
}

passed_on! {
    #[test]
    #[isolated]
    fn below_test_in_a_macro() {
        assert_isolated();
    }

    #[isolated]
    #[test]
    fn above_test_in_a_macro() {
        assert_isolated();
    }
}

/// Generic functions in scope, and closures that borrow, are ordinary code.
fn doubled<T: std::ops::Add<Output = T> + Copy>(value: T) -> T {
    value + value
}

#[isolated]
fn with_generic_helpers() {
    let values = [1, 2];
    let sum = || values.iter().copied().map(doubled).sum::<u32>();
    assert_eq!(sum(), 6);
}

/// What a test below an attribute would be that had dropped ours.
#[body]
#[should_panic(expected = "on purpose")]
fn that_has_lost_its_sandbox() {
    belljar::__private::must_be_inside("that_has_lost_its_sandbox");
    panic!("on purpose");
}

#[test]
fn what_has_lost_its_sandbox_does_not_run() {
    let run = belljar_tests::run_body("that_has_lost_its_sandbox");
    assert_eq!(run.status.code(), Some(101), "{}", run.output);
    assert!(run.output.contains("would have run outside of its sandbox"), "{}", run.output);
    assert!(!run.output.contains("on purpose"), "{}", run.output);
}

#[test]
fn each_test_is_listed_once() {
    let run = belljar_tests::run(this_binary().args(["--list", "--format", "terse"]));
    let names: Vec<_> = run.output.lines().filter_map(|line| line.strip_suffix(": test")).collect();
    let mut expected = vec![
        "above_a_runtime",
        "above_a_runtime_with_arguments",
        "above_a_test_by_cfg_attr",
        "above_test",
        "above_test_in_a_macro",
        "bare",
        "below_a_raw_test",
        "below_a_runtime",
        "below_a_runtime_with_arguments",
        "below_a_test_by_cfg_attr",
        "below_no_test_by_cfg_attr",
        "below_should_panic",
        "below_test",
        "below_test_in_a_macro",
        "by_a_macro",
        "by_a_macro_with_lists",
        "by_a_macro_with_test",
        "by_a_macro_with_values",
        "by_cfg_attr",
        "by_cfg_attr_with_test",
        "by_its_path",
        "by_the_same_macro",
        "by_two_cfg_attrs",
        "calls_itself",
        "each_test_is_listed_once",
        "each_test_is_run_once",
        "far_below_test",
        "ignored",
        "ignored_by_cfg_attr",
        "module::hostile_names::with_shadowed_names",
        "module::in_a_module",
        "r#match",
        "r#mod::r#type",
        "renamed::by_another_name",
        "renamed::through_another_crate",
        "renamed::through_another_crate_above_a_runtime",
        "that_is_public",
        "union",
        "that_never_returns",
        "with_a_result",
        "with_a_return",
        "with_a_runtime_by_a_short_name::above_it",
        "with_a_runtime_by_a_short_name::below_it",
        "with_another_abi",
        "with_empty_parentheses",
        "with_generic_helpers",
        "with_inner_attributes",
        "with_other_attributes",
        "body",
        "what_has_lost_its_sandbox_does_not_run",
    ];
    expected.sort_unstable();
    assert_eq!(names, expected);
}

#[isolated]
fn each_test_is_run_once() {
    assert_isolated();
}
