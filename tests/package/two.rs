//! A test binary.

#[belljar::isolated]
fn isolated() {}

#[test]
fn plain() {
    package::ran("two");
}
