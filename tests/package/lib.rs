//! The unit tests of a package, and its documentation tests.
//!
//! ```
//! assert!(belljar::whereabouts().is_none());
//! package::ran("documentation");
//! ```
//!
//! ```test_harness
//! #[belljar::isolated]
//! fn isolated() {}
//!
//! #[test]
//! fn plain() {
//!     package::ran("documentation with a harness");
//! }
//! ```
//!
//! Nobody would call these.
//!
//! ```compile_fail,E0080
//! #[belljar::isolated]
//! fn isolated() {}
//! ```
//!
//! ```compile_fail,E0080
//! #[belljar::isolated]
//! #[test]
//! fn isolated() {}
//! ```
//!
//! ```compile_fail,E0080
//! #[belljar::isolated]
//! mod tests {
//!     #[test]
//!     fn isolated() {}
//! }
//! ```

use std::env;
use std::fs::File;
use std::io::Write as _;

/// Tells that the program of this name has run.
pub fn ran(name: &str) {
    let file = env::var_os("BELLJAR_TESTS_RAN").expect("BELLJAR_TESTS_RAN");
    let mut file = File::options().append(true).open(file).expect("open");
    writeln!(file, "{name}").expect("write");
}

#[cfg(test)]
mod tests {
    #[belljar::isolated]
    fn isolated() {}

    #[test]
    fn plain() {
        super::ran("unit tests");
    }
}
