//! What the attribute refuses, and what it says then: each error on the token that caused it, all at once.

#[test]
#[ignore = "compiles, which takes a toolchain and a target directory that this user may write to; .ci/run runs it"]
fn errors_are_on_the_exact_token() {
    let cases = trybuild::TestCases::new();
    cases.compile_fail("bad_arguments.rs");
    cases.compile_fail("bad_functions.rs");
}
