//! Which sandbox a test is in: plain data.

/// The sandbox that a test is in.
///
/// From outside, `nsenter --target INIT --preserve-credentials --user --mount --pid` enters it, with the number that
/// [`init`](Self::init) has, and with the kinds of namespaces that it has of its own; see nsenter(1).
///
/// ```test_harness
/// # use belljar::isolated;
/// #[isolated(net)]
/// fn waits_for_a_visitor() {
///     let here = belljar::whereabouts().unwrap();
///     assert!(here.test.ends_with("::waits_for_a_visitor") && here.arguments == "net");
///     println!("nsenter --target {} --preserve-credentials --user --net --pid", here.init.unwrap());
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Whereabouts {
    /// The path of the test function, crate first.
    pub test: &'static str,
    /// The arguments of its attribute, as they are written.
    pub arguments: &'static str,
    /// The number that PID 1 has where the test binary runs.
    pub init: Option<u32>,
}
