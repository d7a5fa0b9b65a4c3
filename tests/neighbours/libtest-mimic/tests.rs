//! Tests that are found as they run: each in a sandbox of its own.

use belljar::{Spec, run, spec};
use libtest_mimic::{Arguments, Failed, Trial};

static SPEC: Spec = spec!(net, timeout = "60s");

fn claim(input: &[u8]) -> Result<Vec<u8>, String> {
    assert_eq!(std::os::unix::process::parent_id(), 1);
    // Whoever shares the sandbox has this port already.
    std::net::TcpListener::bind("0.0.0.0:80").map_err(|error| error.to_string())?;
    if input == b"fails" { Err("as it should".to_owned()) } else { Ok(input.to_vec()) }
}

fn main() {
    let passes = |name: &'static str| {
        Trial::test(name, move || {
            let output = run(&SPEC, name.as_bytes(), claim)?;
            if output == name.as_bytes() { Ok(()) } else { Err(Failed::from("other bytes")) }
        })
    };
    let fails = Trial::test("fails", || match run(&SPEC, b"fails", claim) {
        Err(failure) if failure.to_string().ends_with("its body returned an error: as it should") => Ok(()),
        other => Err(Failed::from(format!("{other:?}"))),
    });
    let ignored = Trial::test("ignored", || Err(Failed::from("it is ignored"))).with_ignored_flag(true);
    libtest_mimic::run(&Arguments::from_args(), vec![passes("one"), passes("two"), fails, ignored]).exit();
}
