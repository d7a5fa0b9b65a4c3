//! Which crates users get with belljar: what `cargo tree` says is compared with a list.
//!
//! The problem: the impls of a crate count in all crates that depend on it, directly or not. A crate that implements a trait of the
//! standard library for a type of the standard library, as serde_json does with `PartialEq<Value> for u8`, keeps the compiler from
//! inferring types in the tests of users. `neighbours/inference` shows code that breaks.

use std::collections::BTreeSet;
use std::env;
use std::process::Command;

/// What is linked to the tests of users. nix implements `From` and `TryFrom` for `Duration` and for integers, which have several such
/// impls in any case. humantime implements `From` for `Duration` and for `SystemTime`, from types of its own: only a call of
/// `SystemTime::from` with a value of no known type would need one more type written. The others implement traits of their own alone.
const LINKED: [&str; 7] = ["belljar", "bitflags", "cfg-if", "humantime", "libc", "memoffset", "nix"];

/// What comes besides with the feature `images`. miniz_oxide implements `From` for integers, which have several such impls in any case. The others
/// implement traits of their own alone.
const LINKED_WITH_IMAGES: [&str; 11] = [
    "adler2",
    "crc32fast",
    "filetime",
    "flate2",
    "miniz_oxide",
    "nanoserde",
    "simd-adler32",
    "tar",
    "zstd",
    "zstd-safe",
    "zstd-sys",
];

/// What the macro uses while it runs. The compiler does not look for impls there: bytesize has some that would break code.
const IN_THE_MACRO: [&str; 6] = ["belljar-macros", "bytesize", "proc-macro2", "quote", "syn", "unicode-ident"];

/// The crates that belljar depends on by edges of these kinds, on all systems, and belljar.
fn tree(edges: &str, features: &str) -> BTreeSet<String> {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(["tree", "--package=belljar", "--edges", edges, "--target=all", "--prefix=none", "--format={p}"]);
    let output = command.args(["--features", features, "--locked", "--offline"]).output().expect("cargo");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("text");
    text.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
}

#[test]
fn users_get_no_crate_that_is_not_listed() {
    let linked = tree("normal,no-proc-macro", "");
    assert_eq!(
        linked,
        LINKED.map(str::to_owned).into(),
        "these crates are linked to the tests of users. A new one must not implement traits of the standard library for types of the \
         standard library: that breaks inference in the code of users. If it does not, add it to `LINKED`"
    );
    let with_images = &tree("normal,no-proc-macro", "images") - &linked;
    assert_eq!(with_images, LINKED_WITH_IMAGES.map(str::to_owned).into(), "as above: `LINKED_WITH_IMAGES`");
    let in_the_macro = &tree("normal", "") - &linked;
    assert_eq!(
        in_the_macro,
        IN_THE_MACRO.map(str::to_owned).into(),
        "the macro uses these crates. Each makes the builds of users longer. If a new one is worth it, add it to `IN_THE_MACRO`"
    );
}
