//! Tests that start from what a preparation has left.

use std::fs::{self, File, FileTimes, Permissions};
use std::io::{self, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{FileExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};
use std::{env, thread};

use belljar::{Change, isolated, prepared};
use belljar_tests::{MIB, Run, body, linux_version, refusal_of_copies, run, this_binary};
use nix::sys::stat::Mode;
use nix::unistd::{Gid, Uid, chown, mkfifo};

belljar_tests::bodies!();

/// The environment variable that tells a body of a directory on the host.
const DIRECTORY: &str = "BELLJAR_TESTS_DIRECTORY";

/// What a preparation prints, once.
const PREPARED: &str = "this was prepared";

/// A command that runs these bodies.
fn bodies(arguments: &[&str]) -> Command {
    let mut command = this_binary();
    command.args(["--ignored", "--show-output", "body"]).args(arguments);
    command.env_remove("CI").env_remove("BELLJAR_UNSUPPORTED");
    command
}

fn run_body(name: &str) -> Run {
    let run = run(&mut bodies(&["--exact", name]));
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
    if let Some(run) = see(bodies(&["--exact", name])) {
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
    let Some(run) = see(bodies(&["own::", "--test-threads=16"])) else { return };
    assert!(run.status.success() && run.output.contains("100 passed; 0 failed"), "{}", run.output);
    assert_eq!(run.output.matches(PREPARED).count(), 1, "{}", run.output);
}

/// Without copies, what they do is seen.
#[test]
fn without_copies_all_see_what_one_writes() {
    let directory = tempfile::tempdir().expect("a directory");
    fill(directory.path()).expect("fill");
    let run = run(bodies(&["shared::", "--test-threads=16"]).env(DIRECTORY, directory.path()));
    assert!(run.output.contains("somebody was here"), "{}", run.output);
}

// ---- What is left is whole ----

/// A time with nanoseconds.
const TIME: Duration = Duration::new(1_000_000_000, 123_456_789);

#[prepared]
fn whole() -> io::Result<()> {
    nix::sys::stat::umask(Mode::empty());
    fs::create_dir("/data")?;
    let path = |name: &str| Path::new("/data").join(name);
    for (name, mode) in [("setuid", 0o4755), ("secret", 0o600), ("script", 0o711)] {
        fs::write(path(name), name)?;
        fs::set_permissions(path(name), Permissions::from_mode(mode))?;
    }
    fs::create_dir(path("sticky"))?;
    fs::set_permissions(path("sticky"), Permissions::from_mode(0o1777))?;
    fs::hard_link(path("secret"), path("same"))?;
    symlink("../data/secret", path("link"))?;
    symlink("nowhere", path("dangling"))?;
    let sparse = File::create(path("sparse"))?;
    sparse.write_all_at(b"end", 1 << 30)?;
    mkfifo(&path("fifo"), Mode::from_bits_truncate(0o640))?;
    drop(UnixListener::bind(path("socket"))?);
    let old = File::create(path("old"))?;
    old.set_times(FileTimes::new().set_modified(SystemTime::UNIX_EPOCH + TIME))?;
    // Parts of the small system.
    fs::remove_file("/etc/hosts")?;
    fs::write("/etc/hostname", "prepared\n")?;
    fs::remove_dir("/mnt")?;
    fs::write("/tmp/file", "in a private directory")?;
    fs::write(concat!(env!("CARGO_TARGET_TMPDIR"), "/file"), "in the directory of the target")?;
    fs::write(home().join("file"), "at home")?;
    File::create(path("dropped")).and_then(|_| fs::remove_file(path("dropped")))
}

fn home() -> PathBuf {
    PathBuf::from(env::var_os("HOME").unwrap_or("/root".into()))
}

fn finds_all() {
    let path = |name: &str| Path::new("/data").join(name);
    let metadata = |name: &str| fs::symlink_metadata(path(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    for (name, mode) in [("setuid", 0o4755), ("secret", 0o600), ("script", 0o711), ("sticky", 0o1777)] {
        assert_eq!(metadata(name).mode() & 0o7777, mode, "{name}");
    }
    assert_eq!((metadata("secret").nlink(), metadata("same").ino()), (2, metadata("secret").ino()));
    assert_eq!(fs::read_link(path("link")).expect("link"), Path::new("../data/secret"));
    assert_eq!(fs::read_to_string(path("link")).expect("the link's file"), "secret");
    assert_eq!(fs::read_link(path("dangling")).expect("link"), Path::new("nowhere"));
    let sparse = metadata("sparse");
    assert!(sparse.len() == (1 << 30) + 3 && sparse.blocks() * 512 < MIB as u64, "{sparse:?}");
    let mut end = [0; 3];
    File::open(path("sparse")).and_then(|file| file.read_exact_at(&mut end, 1 << 30)).expect("read");
    assert_eq!(&end, b"end");
    assert!(metadata("fifo").file_type().is_fifo() && metadata("fifo").mode() & 0o777 == 0o640);
    assert!(metadata("socket").file_type().is_socket());
    assert_eq!(metadata("old").modified().expect("time"), SystemTime::UNIX_EPOCH + TIME);
    assert!(!path("dropped").exists());
    assert!(!Path::new("/etc/hosts").exists() && !Path::new("/mnt").exists());
    assert_eq!(fs::read_to_string("/etc/hostname").expect("hostname"), "prepared\n");
    assert_eq!(fs::read_to_string("/tmp/file").expect("tmp"), "in a private directory");
    let target = concat!(env!("CARGO_TARGET_TMPDIR"), "/file");
    assert_eq!(fs::read_to_string(target).expect("target"), "in the directory of the target");
    assert_eq!(fs::read_to_string(home().join("file")).expect("home"), "at home");
    // All of it can be changed.
    fs::write(path("secret"), "told").expect("write");
    fs::write(target, "").expect("write");
    fs::create_dir("/mnt").expect("mkdir");
    // What is not left is as in any sandbox.
    for path in ["/proc/self/status", "/dev/null", "/sys/class/net/lo", "/usr"] {
        assert!(Path::new(path).exists(), "{path}");
    }
    assert!(Command::new("true").status().expect("a program").success());
}

#[body]
#[isolated(from = whole)]
fn starts_from_it() {
    finds_all();
}

#[body]
#[isolated(from = whole, uts)]
fn starts_from_it_with_the_hosts_network() {
    finds_all();
}

#[body]
#[isolated(from = whole, hostname = "other", env = ["NAME=value"], timeout = "60s")]
fn starts_from_it_with_options() {
    finds_all();
    assert_eq!(nix::unistd::gethostname().expect("hostname"), "other");
}

#[body]
#[isolated(from = whole, user = 1000)]
fn starts_from_it_as_somebody() {
    assert_eq!(fs::metadata("/data/secret").expect("stat").uid(), 1000);
    finds_all();
}

#[test]
fn all_is_as_it_was_left() {
    let names = ["starts_from_it", "starts_from_it_with_the_hosts_network", "starts_from_it_with_options"];
    let Some(run) = see(bodies(&[&["--exact"][..], &names, &["starts_from_it_as_somebody"]].concat())) else { return };
    assert!(run.output.contains("4 passed; 0 failed"), "{}", run.output);
}

#[prepared]
fn with_attributes() {
    fs::write("/file", "").expect("write");
    let set = Command::new("setfattr").args(["-n", "user.colour", "-v", "blue", "/file"]).status();
    assert!(set.expect("setfattr").success());
}

#[body]
#[isolated(from = with_attributes)]
fn finds_attributes() {
    let told = Command::new("getfattr").args(["--only-values", "-n", "user.colour", "/file"]).output();
    assert_eq!(told.expect("getfattr").stdout, b"blue");
}

#[test]
#[ignore = "takes setfattr and getfattr, and Linux 6.6: before, a tmpfs has no attributes of users; .ci/run runs it"]
fn attributes_of_users_are_left() {
    assert!(linux_version() >= (6, 6));
    passes("finds_attributes");
}

#[prepared(uids = 2000)]
fn with_owners() -> io::Result<()> {
    fs::create_dir("/data")?;
    for (name, owner) in [("ann", 1000), ("bob", 1001)] {
        let path = Path::new("/data").join(name);
        fs::write(&path, name)?;
        chown(&path, Some(Uid::from_raw(owner)), Some(Gid::from_raw(owner + 1)))?;
    }
    chown("/data", Some(Uid::from_raw(1000)), None)?;
    Ok(())
}

#[body]
#[isolated(from = with_owners, user = 1000)]
fn finds_owners() {
    let owner = |path: &str| fs::metadata(path).map(|metadata| (metadata.uid(), metadata.gid())).expect("stat");
    assert_eq!(owner("/data").0, 1000);
    assert_eq!([owner("/data/ann"), owner("/data/bob")], [(1000, 1001), (1001, 1002)]);
    fs::write("/data/ann", "mine").expect("write");
    assert!(fs::write("/data/bob", "").is_err());
    fs::remove_file("/data/bob").expect("the directory is mine");
    chown("/data/ann", None, Some(Gid::from_raw(1000))).expect("one of my groups");
}

#[test]
#[ignore = "takes several ids, which ordinary users have by newuidmap; .ci/run runs it"]
fn owners_are_left() {
    passes("finds_owners");
}

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

// ---- Roots of other kinds, and preparations upon preparations ----

#[prepared(root = "overlay")]
fn changed_tree() -> io::Result<()> {
    fs::write("/etc/made", "prepared")?;
    fs::remove_file("/etc/passwd")?;
    fs::write("/created", "created")?;
    fs::write("/tmp/created", "created")?;
    fs::create_dir_all("/var/lib")?;
    fs::write("/var/lib/created", "created")
}

#[body]
#[isolated(from = changed_tree)]
fn starts_from_a_changed_tree() {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_else(|error| panic!("{path}: {error}"));
    for path in ["/created", "/tmp/created", "/var/lib/created"] {
        assert_eq!(read(path), "created");
    }
    assert_eq!(read("/etc/made"), "prepared");
    assert!(!Path::new("/etc/passwd").exists() && Path::new("/etc/group").exists());
    assert_eq!(belljar::changes().expect("changes"), []);
    fs::write("/created", "changed").expect("write");
    fs::remove_file("/etc/made").expect("remove");
    fs::write("/etc/passwd", "root:x:0:0:::\n").expect("write");
    let changes = [
        Change::Changed("/created".into()),
        Change::Removed("/etc/made".into()),
        Change::Created("/etc/passwd".into()),
    ];
    assert_eq!(belljar::changes().expect("changes"), changes);
    assert!(Command::new("true").status().expect("a program").success());
}

#[test]
fn a_changed_tree_is_left() {
    passes("starts_from_a_changed_tree");
}

#[prepared(root = "/etc")]
fn changed_directory() -> io::Result<()> {
    fs::write("/created", "created")?;
    fs::write(concat!(env!("CARGO_TARGET_TMPDIR"), "/file"), "kept")
}

#[body]
#[isolated(from = changed_directory)]
fn starts_from_a_changed_directory() {
    assert_eq!(fs::read_to_string("/created").expect("read"), "created");
    assert_eq!(fs::read_to_string(concat!(env!("CARGO_TARGET_TMPDIR"), "/file")).expect("read"), "kept");
    fs::remove_file("/created").expect("remove");
    assert_eq!(belljar::changes().expect("changes"), [Change::Removed("/created".into())]);
}

#[test]
fn a_changed_directory_is_left() {
    passes("starts_from_a_changed_directory");
}

#[prepared]
fn lowest() -> io::Result<()> {
    println!("{PREPARED}");
    for name in ["kept", "changed", "removed"] {
        fs::create_dir_all(Path::new("/data").join(name))?;
        fs::write(Path::new("/data").join(name).join("file"), "lowest")?;
    }
    fs::write(concat!(env!("CARGO_TARGET_TMPDIR"), "/lowest"), "")
}

#[prepared(from = lowest)]
fn middle() -> io::Result<()> {
    println!("{PREPARED}");
    fs::write("/data/changed/file", "middle")?;
    fs::remove_file("/data/removed/file")?;
    fs::write("/data/removed/other", "middle")?;
    fs::write(concat!(env!("CARGO_TARGET_TMPDIR"), "/middle"), "")
}

/// Of which two start from the same.
#[prepared(from = middle)]
fn upper() -> io::Result<()> {
    println!("{PREPARED}");
    fs::write("/data/upper", "upper")?;
    fs::remove_file("/data/kept/file")
}

mod stacked {
    #[belljar_tests::body]
    #[belljar::isolated(from = super::upper)]
    fn from_the_uppermost() {
        use std::fs;
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        assert_eq!(["/data/kept/file", "/data/changed/file"].map(read), ["", "middle"]);
        assert_eq!(["/data/removed/file", "/data/removed/other", "/data/upper"].map(read), ["", "middle", "upper"]);
        for name in ["lowest", "middle"] {
            assert!(fs::exists(format!("{}/{name}", env!("CARGO_TARGET_TMPDIR"))).expect("stat"), "{name}");
        }
        fs::remove_dir_all("/data/changed").expect("remove");
        fs::write("/data/kept/file", "").expect("write");
        let (changed, kept) = ("/data/changed".into(), "/data/kept/file".into());
        let changes = belljar::changes().expect("changes");
        assert_eq!(changes, [belljar::Change::Removed(changed), belljar::Change::Created(kept)]);
    }

    #[belljar_tests::body]
    #[belljar::isolated(from = super::middle)]
    fn from_the_middle() {
        assert!(!std::fs::exists("/data/upper").expect("stat"));
        assert!(std::fs::exists("/data/kept/file").expect("stat"));
    }

    #[belljar_tests::body]
    #[belljar::isolated(from = super::lowest)]
    fn from_the_lowest() {
        assert_eq!(std::fs::read_to_string("/data/removed/file").expect("read"), "lowest");
    }
}

#[test]
fn preparations_stack() {
    let Some(run) = see(bodies(&["stacked::", "--test-threads=16"])) else { return };
    assert!(run.output.contains("3 passed; 0 failed"), "{}", run.output);
    assert_eq!(run.output.matches(PREPARED).count(), 3, "{}", run.output);
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
    let run = run(&mut bodies(&["failing::", "--test-threads=1"]));
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
    let mut command = bodies(&["--exact", "reads_a_large_file"]);
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
