//! A test for each file: each in a sandbox of its own.

use belljar::{Spec, run, spec};

static SPEC: Spec = spec!(timeout = "60s");

fn claim(input: &[u8]) -> std::io::Result<Vec<u8>> {
    assert_eq!(std::os::unix::process::parent_id(), 1);
    // Whoever shares the sandbox has this file already.
    std::fs::File::create_new("/etc/claimed")?;
    std::fs::write("/etc/claimed", input)?;
    std::fs::read("/etc/claimed")
}

fn is_copied(_: &datatest_stable::Utf8Path, content: Vec<u8>) -> datatest_stable::Result<()> {
    assert_eq!(run(&SPEC, &content, claim)?, content);
    Ok(())
}

datatest_stable::harness! {
    { test = is_copied, root = "data", pattern = r"\.txt$" },
}
