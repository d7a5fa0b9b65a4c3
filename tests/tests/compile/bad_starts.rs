//! Compiled by `compile`, as tests: these start from what they can't start from.
use belljar::{isolated, prepared};

fn no_preparation() {}

#[isolated(from = no_preparation)]
fn from_a_function() {
    no_preparation();
}

#[prepared(uids = 10)]
fn files() {}

#[isolated(from = files, user = 10)]
fn as_nobody_there() {}

mod private {
    #[belljar::prepared]
    fn hidden() {}
}

#[isolated(from = private::hidden)]
fn from_a_private_one() {}
