//! Tests that start from what a preparation has left.

mod left;
mod roots;

use std::fs::{self, File, Permissions};
use std::io::{self, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use std::{env, thread};

use belljar::{isolated, prepared};
use belljar_tests::{MIB, Run, body, refusal_of_copies, run, run_begun, this_binary};
use nix::sys::stat::Mode;

belljar_tests::bodies!();

/// The environment variable that tells a body of a directory on the host.
const DIRECTORY: &str = "BELLJAR_TESTS_DIRECTORY";

/// What a preparation prints, once.
const PREPARED: &str = "this was prepared";

/// A command that runs these bodies.
fn bodies(arguments: &[&str]) -> Command {
    let mut command = this_binary();
    command.args(["--exact", "--show-output", "body"]).args(arguments);
    command.env_remove("CI").env_remove("BELLJAR_UNSUPPORTED");
    command
}

fn run_body(name: &str) -> Run {
    let run = run(&mut bodies(&[name]));
    assert!(run.left.is_empty(), "{}", run.output);
    run
}

/// What is seen if these bodies pass. Where the kernel has no copies, they must fail, and say so: then there is nothing to see.
fn see(mut command: Command) -> Option<Run> {
    let run = run(&mut command);
    assert!(run.left.is_empty(), "{}", run.output);
    let Some(words) = refusal_of_copies() else { return Some(run) };
    assert_eq!(run.status.code(), Some(101), "{}", run.output);
    for words in ["did not run", "lay a private copy"].into_iter().chain(words) {
        assert!(run.output.contains(words), "{words:?} is not in this:\n{}", run.output);
    }
    None
}

fn passes(name: &str) {
    if let Some(run) = see(bodies(&[name])) {
        assert!(run.passed(), "{}", run.output);
    }
}

// ---- Each test has a copy of its own ----

const NAMES: [&str; 5] = ["appended", "linked", "moved", "removed", "replaced"];

/// What the preparation leaves.
fn fill(directory: &Path) -> io::Result<()> {
    for name in NAMES {
        fs::write(directory.join(name), name)?;
    }
    fs::create_dir(directory.join("full"))?;
    fs::write(directory.join("full/file"), "")
}

/// Whether all is as the preparation has left it.
fn is_untouched(directory: &Path) -> bool {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut names: Vec<_> = entries.map(|entry| entry.file_name()).collect();
    names.sort();
    let is_own = |name: &&str| {
        let path = directory.join(name);
        let metadata = fs::metadata(&path).ok().filter(|metadata| metadata.nlink() == 1);
        metadata.is_some_and(|metadata| metadata.mode() & 0o777 == 0o644)
            && fs::read_to_string(path).is_ok_and(|text| text == *name)
    };
    names == ["appended", "full", "linked", "moved", "removed", "replaced"]
        && NAMES.iter().all(is_own)
        && directory.join("full/file").exists()
}

/// Changes all of it.
fn spoil(directory: &Path) -> io::Result<()> {
    let path = |name: &str| directory.join(name);
    File::options().append(true).open(path("appended"))?.write_all(b" to")?;
    fs::set_permissions(path("appended"), Permissions::from_mode(0o600))?;
    fs::hard_link(path("linked"), path("link"))?;
    fs::rename(path("moved"), path("away"))?;
    fs::remove_file(path("removed"))?;
    fs::remove_file(path("replaced"))?;
    symlink("away", path("replaced"))?;
    fs::remove_file(path("full/file"))?;
    fs::write(path("new"), "")
}

#[prepared]
fn filled() -> io::Result<()> {
    println!("{PREPARED}");
    fs::create_dir("/data")?;
    fs::set_permissions("/data", Permissions::from_mode(0o755))?;
    nix::sys::stat::umask(Mode::from_bits_truncate(0o022));
    fill(Path::new("/data"))
}

/// A hundred bodies, of which each spoils what it finds.
macro_rules! hundred {
    ($module:ident $arguments:tt $work:ident) => {
        mod $module { hundred!(@tens $arguments $work a b c d e f g h i j); }
    };
    (@tens $arguments:tt $work:ident $($ten:ident)*) => {
        $(mod $ten { hundred!(@ones $arguments $work a b c d e f g h i j); })*
    };
    (@ones $arguments:tt $work:ident $($one:ident)*) => {
        $(#[belljar_tests::body]
        #[belljar::isolated $arguments]
        fn $one() {
            crate::$work();
        })*
    };
}

hundred!(own(from = crate::filled) spoils_its_own);
hundred!(shared(uts) spoils_the_hosts);

fn spoils_its_own() {
    let directory = Path::new("/data");
    assert!(is_untouched(directory));
    spoil(directory).expect("it can be changed");
    assert!(!is_untouched(directory));
}

fn spoils_the_hosts() {
    let directory = PathBuf::from(env::var_os(DIRECTORY).expect(DIRECTORY));
    assert!(is_untouched(&directory), "somebody was here");
    spoil(&directory).expect("it can be changed");
}

#[test]
fn nobody_sees_what_others_write() {
    let Some(run) = see(bodies(&["own::*", "--test-threads=16"])) else { return };
    assert!(run.status.success() && run.output.contains("100 passed; 0 failed"), "{}", run.output);
    assert_eq!(run.output.matches(PREPARED).count(), 1, "{}", run.output);
}

/// Without copies, what they do is seen.
#[test]
fn without_copies_all_see_what_one_writes() {
    let directory = tempfile::tempdir().expect("a directory");
    fill(directory.path()).expect("fill");
    let run = run(bodies(&["shared::*", "--test-threads=16"]).env(DIRECTORY, directory.path()));
    assert!(run.output.contains("somebody was here"), "{}", run.output);
}

// ---- What is left is whole ----

#[prepared]
fn large() -> io::Result<()> {
    let mut file = File::create("/large")?;
    let block = vec![7; MIB];
    (0..64).try_for_each(|_| file.write_all(&block))
}

#[body]
#[isolated(from = large)]
fn reads_a_large_file() {
    let mut file = File::options().read(true).open("/large").expect("open");
    assert_eq!(file.seek(SeekFrom::End(0)).expect("seek"), 64 * MIB as u64);
    fs::write("/small", "").expect("write");
}

#[test]
fn files_may_be_large() {
    passes("reads_a_large_file");
}

// ---- What is not left ----

#[prepared]
fn busy() -> io::Result<()> {
    Command::new("sleep").arg("1000").spawn()?;
    nix::unistd::sethostname("prepared")?;
    fs::create_dir("/mounted")?;
    nix::mount::mount(Some("tmpfs"), "/mounted", Some("tmpfs"), nix::mount::MsFlags::empty(), None::<&str>)?;
    fs::write("/mounted/file", "")?;
    fs::write("/dev/shm/file", "")
}

#[body]
#[isolated(from = busy)]
fn starts_from_a_busy_one() {
    assert_eq!(nix::unistd::gethostname().expect("hostname"), "localhost");
    assert_eq!(fs::read_dir("/mounted").expect("the mount point").count(), 0);
    assert_eq!(fs::read_dir("/dev/shm").expect("shm").count(), 0);
    let numbers = fs::read_dir("/proc").expect("proc").flatten().map(|entry| entry.file_name());
    let processes = numbers.filter(|name| name.to_string_lossy().parse::<u32>().is_ok()).count();
    // Init, and this one.
    assert_eq!(processes, 2);
}

#[test]
fn nothing_but_files_is_left() {
    passes("starts_from_a_busy_one");
}

// ---- Preparations that fail ----

#[prepared]
fn panics() {
    println!("{PREPARED}");
    panic!("on purpose");
}

#[prepared(timeout = "100ms")]
fn hangs() {
    thread::sleep(Duration::from_secs(1000));
}

#[prepared]
fn returns_an_error() -> io::Result<()> {
    Err(io::Error::other("no such luck"))
}

#[prepared(from = panics)]
fn above_one_that_panics() {}

mod failing {
    macro_rules! failing {
        ($($name:ident from $preparation:ident)*) => {
            $(#[belljar_tests::body]
            #[belljar::isolated(from = super::$preparation)]
            fn $name() {
                println!("the body ran");
            })*
        };
    }
    failing! {
        after_a_panic from panics
        after_the_same_panic from panics
        after_a_timeout from hangs
        after_an_error from returns_an_error
        after_one_above from above_one_that_panics
    }

    #[belljar_tests::body]
    #[belljar::isolated(from = super::panics)]
    #[should_panic]
    fn that_should_panic() {}
}

#[test]
fn who_starts_from_one_that_failed_fails() {
    let run = run_begun(&mut bodies(&["failing::*", "--test-threads=1"]));
    assert!(run.output.contains("0 passed; 6 failed") && run.left.is_empty(), "{}", run.output);
    assert!(!run.output.contains("the body ran"), "{}", run.output);
    assert_eq!(run.output.matches(PREPARED).count(), 1, "{}", run.output);
    let mut told: Vec<_> = run.output.lines().filter(|line| line.contains("its preparation")).collect();
    told.sort_unstable();
    insta::assert_snapshot!(told.join("\n"), @r"
    belljar: `failing::after_a_panic` failed: its preparation `panics` failed: it panicked: on purpose
    belljar: `failing::after_a_timeout` failed: its preparation `hangs` failed: it still ran after its timeout of 100ms, and was killed with all it had started:
    belljar: `failing::after_an_error` failed: its preparation `returns_an_error` failed: it returned a value that stands for the status 1, which means failure.
    belljar: `failing::after_one_above` failed: its preparation `above_one_that_panics` failed: its preparation `panics` failed: it panicked: on purpose
    belljar: `failing::after_the_same_panic` failed: its preparation `panics` failed: it panicked: on purpose
    belljar: `failing::that_should_panic` failed: its preparation `panics` failed: it panicked: on purpose
    ");
}

#[prepared(user = "host", unsupported = "skip")]
fn of_the_hosts_root() {}

#[body]
#[isolated(from = of_the_hosts_root)]
fn starts_from_one_that_is_skipped() {
    println!("the body ran");
}

/// Within a sandbox nobody is real root.
#[isolated]
fn who_starts_from_one_that_was_skipped_is_skipped() {
    let run = run_body("starts_from_one_that_is_skipped");
    assert!(run.passed() && !run.output.contains("the body ran"), "{}", run.output);
    let told: Vec<_> = run.output.lines().filter(|line| line.contains("skipped")).collect();
    insta::assert_snapshot!(told.join("\n"), @r#"
    belljar: skipped: `starts_from_one_that_is_skipped`, as its preparation `of_the_hosts_root` is: could not do without a user namespace: EPERM (Operation not permitted); the cause: `user = "host"` stands for the machine's own root, and the tests run as an ordinary user or in a user namespace
    belljar: skipped 1 test that this host can't run
      starts_from_one_that_is_skipped: could not do without a user namespace: EPERM (Operation not permitted); the cause: `user = "host"` stands for the machine's own root, and the tests run as an ordinary user or in a user namespace
    "#);
}

// ---- What is told ----

#[test]
fn its_cost_is_told() {
    let directory = tempfile::tempdir().expect("a directory");
    let [report, trace] = ["report", "trace"].map(|name| directory.path().join(name));
    fs::set_permissions(directory.path(), Permissions::from_mode(0o777)).expect("chmod");
    let mut command = bodies(&["reads_a_large_file"]);
    command.env("BELLJAR_REPORT", format!("json:{}", report.display())).env("BELLJAR_TRACE", &trace);
    if see(command).is_none() {
        return;
    }
    let report = fs::read_to_string(report).expect("a report");
    let lines: Vec<serde_json::Value> = report.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let told: Vec<_> = lines.iter().map(|line| (line["test"].as_str(), line["verdict"].as_str())).collect();
    let names = ["prepared::large", "prepared::reads_a_large_file"];
    assert_eq!(told, names.map(|name| (Some(name), Some("passed"))));
    let trace = fs::read_to_string(trace).expect("a trace");
    for name in ["large", "reads_a_large_file", "prepare"] {
        assert!(trace.contains(&format!("\"name\":\"{name}\"")), "{name} is not in this:\n{trace}");
    }
}
