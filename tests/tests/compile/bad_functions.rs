//! Compiled by `compile`, which expects the errors in `bad_functions.stderr`.
use belljar::isolated;

#[isolated]
fn with_parameters(_number: u32, _text: &str) {}

#[isolated]
async fn without_a_runtime() {}

#[isolated]
fn generic<T>() {}

#[isolated]
unsafe fn without_safety() {}

#[isolated(nett)]
async unsafe fn four_errors_at_once(_number: u32) {}

#[isolated]
#[isolated(net)]
fn twice() {}

#[isolated]
fn locks_inside() {
    // What `#[serial]` makes of a body.
    serial_test::local_serial_core(vec![""], None, || {});
}

#[isolated = "net"]
fn key_and_value() {}

struct WithMethods;

impl WithMethods {
    #[isolated]
    fn with_self(&self, _number: u32) {}
}

trait WithoutBodies {
    #[isolated]
    fn without_a_body();
}

#[isolated]
fn with_an_error_in_its_body() {
    let number = ;
}

#[isolated]
#[test]
fn with_an_error_in_its_body_too() {
    if let Some(_) = { }
}

#[isolated]
struct NoFunction;

fn main() {
    with_parameters(1, "");
    let _ = NoFunction;
    WithMethods.with_self(1);
}
