//! The crate by other names.

use super::assert_isolated;
extern crate belljar as jar;

/// Where belljar is, in a crate that passes it on.
pub(crate) mod reexport {
    pub(crate) use belljar as glass;
}

#[jar::isolated(crate = self::jar)]
fn by_another_name() {
    assert_isolated();
}

#[reexport::glass::isolated(crate = crate::renamed::reexport::glass, uts)]
fn through_another_crate() {
    assert_isolated();
}

#[reexport::glass::isolated(crate = crate::renamed::reexport::glass)]
#[tokio::test]
async fn through_another_crate_above_a_runtime() {
    assert_isolated();
}
