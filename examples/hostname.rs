//! The crate [`hostname`] reads and sets the name of the machine.
//!
//! As a plain `#[test]`, this needs root, and then renames the machine it runs on, for good.

use belljar::isolated;

#[isolated]
fn renames_the_machine() {
    hostname::set("jar").expect("root may rename the machine");
    assert_eq!(hostname::get().expect("a name"), "jar");
}

/// Meanwhile, the neighbour has another name.
#[isolated(hostname = "web1")]
fn is_called_as_asked() {
    assert_eq!(hostname::get().expect("a name"), "web1");
}
