//! Compiled by `compile`, in a crate that knows belljar by the name `glass`.
use glass::isolated;

#[isolated]
fn by_itself() {}

#[isolated(net)]
#[test]
fn above_test() {}

#[isolated(crate = glass)]
fn as_it_should_be() {}
