//! A test without a harness: no argument asks it for anything.

fn main() {
    assert!(belljar::whereabouts().is_none());
    package::ran("program");
}
