//! The target directory goes while its tests run, as by `cargo clean`. No test named it, so that none fails.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::{env, io};

use belljar::{isolated, prepared};
use belljar_tests::{as_runner, binary_at, body, refusal_of_copies, run, runners};

belljar_tests::bodies!();

/// The environment variable that says what becomes of the target directory: `removed` or `renamed`.
const HOW: &str = "BELLJAR_TESTS_TARGET";

/// The target directory that this binary was started from.
fn target() -> PathBuf {
    let binary = PathBuf::from(env::args_os().next().expect("a name"));
    binary.ancestors().nth(3).expect("a target directory").to_owned()
}

#[body]
#[isolated]
fn turn_1_is_there() {
    assert!(target().join("CACHEDIR.TAG").exists());
}

#[body]
#[isolated(root = "overlay")]
fn turn_1_is_in_a_copy() {
    assert!(target().join("CACHEDIR.TAG").exists());
}

#[body]
fn turn_2_it_goes() {
    let target = target();
    match env::var(HOW).as_deref() {
        Ok("removed") => fs::remove_dir_all(&target).expect("remove"),
        _ => fs::rename(&target, target.with_extension("gone")).expect("rename"),
    }
}

/// Of a kind for which there are a template and a plan.
#[body]
#[isolated]
fn turn_3_as_before() {
    is_gone();
}

#[body]
#[isolated]
fn turn_3_as_before_again() {
    is_gone();
}

#[body]
#[isolated(root = "overlay")]
fn turn_3_in_a_copy() {
    is_gone();
}

#[body]
#[isolated(hostname = "another")]
fn turn_3_by_another_plan() {
    is_gone();
}

/// Of a kind for which there is no template.
#[body]
#[isolated(net, mount)]
fn turn_3_by_another_template() {
    is_gone();
}

#[prepared]
fn prepares() {
    fs::write("/prepared", "").expect("write");
}

#[body]
#[isolated(from = prepares)]
fn turn_3_from_a_preparation() {
    assert!(Path::new("/prepared").exists());
}

/// A panic is told as before.
#[body]
#[isolated]
#[should_panic(expected = "on purpose")]
fn turn_3_panics() {
    panic!("on purpose");
}

fn is_gone() {
    assert!(!target().join("CACHEDIR.TAG").exists(), "{}", target().display());
}

/// Makes a target directory that has this binary in it.
fn make_target(above: &Path) -> io::Result<PathBuf> {
    let deps = above.join("target/debug/deps");
    fs::create_dir_all(&deps)?;
    fs::write(above.join("target/CACHEDIR.TAG"), "")?;
    let binary = deps.join("target_gone");
    fs::copy(env::current_exe()?, &binary)?;
    for directory in [above, &above.join("target"), &above.join("target/debug"), &deps] {
        // Whoever runs it removes it.
        fs::set_permissions(directory, Permissions::from_mode(0o777))?;
    }
    Ok(binary)
}

#[test]
fn tests_run_without_the_target_directory() {
    if let Some(why) = refusal_of_copies() {
        println!("not tried: {why:?}");
        return;
    }
    for runner in runners() {
        for how in ["removed", "renamed"] {
            let above = tempfile::tempdir().expect("a directory");
            let binary = make_target(above.path()).expect("a target directory");
            let mut command = binary_at(&binary);
            command.args(["body", "turn_*", "--exact", "--test-threads=1", "--show-output"]);
            let run = run(&mut as_runner(*runner, command.env(HOW, how)));
            let context = format!("{how}, as {runner:?}: {}", run.output);
            assert!(run.output.contains("test result: ok. 10 passed; 0 failed;"), "{context}");
            assert!(run.left.is_empty(), "{:?}: {context}", run.left);
        }
    }
}
