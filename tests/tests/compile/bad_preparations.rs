//! Compiled by `compile`, which expects the errors in `bad_preparations.stderr`.
use belljar::{isolated, prepared};

#[prepared]
fn files() {}

#[isolated(from = files, root = "overlay", uids = 5, bind = ["/a"], tmpfs = "1MiB", mount)]
fn makes_its_own_root() {}

#[isolated(from = files, user = "host")]
fn has_ids_of_its_own() {}

#[isolated(from = "files")]
fn from_a_text() {}

#[prepared]
async fn without_a_runtime() {}

#[prepared]
fn with_parameters<T>(_number: T) {}

#[prepared]
#[test]
#[should_panic]
fn is_a_test() {}

#[prepared(net)]
fn leaves_nothing() {}

#[prepared(rooot = "overlay")]
fn with_a_bad_argument() {}

#[prepared]
struct NoFunction;

#[prepared]
fn returns_a_number() -> u32 {
    0
}

#[prepared(from = second)]
fn first() {}

#[prepared(from = first)]
fn second() {}

fn main() {}
