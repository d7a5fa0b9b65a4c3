//! Roots that are copies: of the host's tree, and of a directory.

mod told;

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs, io};

use belljar::ns::{Kind, Namespace};
use belljar::{Change, isolated};
use belljar_tests::{Run, body, linux_version, refusal_of_copies, run, this_binary};
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::unistd::{Gid, Uid, chown, getuid, sethostname};

belljar_tests::bodies!();

/// The environment variable that tells a test of a directory on the host.
const DIRECTORY: &str = "BELLJAR_TESTS_DIRECTORY";

/// The one that tells of the working directory outside.
const CWD: &str = "BELLJAR_TESTS_CWD";

fn directory() -> PathBuf {
    PathBuf::from(env::var_os(DIRECTORY).expect(DIRECTORY))
}

/// A directory of the host that tests change.
fn make_directory() -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path();
    for name in ["kept", "changed", "removed", "replaced", "opened"] {
        fs::write(path.join(name), name).expect("write");
    }
    for name in ["full/deep", "emptied", "again"] {
        fs::create_dir_all(path.join(name)).expect("mkdir");
    }
    for name in ["full/deep/file", "emptied/file", "again/a", "again/b"] {
        fs::write(path.join(name), name).expect("write");
    }
    symlink("kept", path.join("link")).expect("symlink");
    symlink("full", path.join("to-full")).expect("symlink");
    directory
}

/// All that there is in a directory: each path, and what is there.
fn contents(directory: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).expect("read_dir") {
        let path = entry.expect("an entry").path();
        let mode = fs::symlink_metadata(&path).expect("stat").mode();
        let text = fs::read_link(&path).map(|target| target.display().to_string());
        let text = text.or_else(|_| fs::read_to_string(&path)).unwrap_or_default();
        found.push(format!("{} {mode:o} {text}", path.display()));
        if path.is_dir() {
            found.extend(contents(&path));
        }
    }
    found.sort();
    found
}

/// Whether a tmpfs has the attributes that overlayfs marks directories with which hide what is below: since Linux 6.6.
fn has_attributes() -> bool {
    linux_version() >= (6, 6)
}

/// Changes the directory in every way that there is.
fn change(directory: &Path) -> io::Result<()> {
    let path = |name: &str| directory.join(name);
    fs::read(path("kept"))?;
    fs::write(path("changed"), "another text")?;
    fs::remove_file(path("removed"))?;
    fs::remove_file(path("replaced"))?;
    if has_attributes() {
        fs::create_dir(path("replaced"))?;
    } else {
        symlink("kept", path("replaced"))?;
    }
    fs::set_permissions(path("opened"), fs::Permissions::from_mode(0o600))?;
    fs::set_permissions(path("full"), fs::Permissions::from_mode(0o700))?;
    match fs::remove_dir_all(path("emptied")) {
        Err(error) if !has_attributes() && error.raw_os_error() == Some(Errno::EIO as i32) => {}
        result => result?,
    }
    fs::create_dir_all(path("new/deep"))?;
    fs::write(path("new/deep/file"), "")?;
    fs::write(path("full/deep/new"), "")?;
    fs::remove_file(path("link"))?;
    symlink("changed", path("link"))?;
    // What was made and removed again is no change.
    fs::write(path("passing"), "")?;
    fs::remove_file(path("passing"))
}

/// The changes that [`change`] makes.
fn changes(directory: &Path) -> Vec<Change> {
    let mut changes = Vec::new();
    changes.extend(
        ["new", "new/deep", "new/deep/file", "full/deep/new"].map(|name| Change::Created(directory.join(name))),
    );
    changes.extend(["changed", "replaced", "opened", "full", "link"].map(|name| Change::Changed(directory.join(name))));
    let emptied = if has_attributes() { "emptied" } else { "emptied/file" };
    changes.extend(["removed", emptied].map(|name| Change::Removed(directory.join(name))));
    changes.sort_by(|a, b| a.path().cmp(b.path()));
    changes
}

fn run_in(directory: &Path, test: &str) -> Run {
    let mut command = this_binary();
    command.args(["--exact", "body", test, "--show-output"]).env(DIRECTORY, directory);
    run(command.env(CWD, env::current_dir().expect("cwd")))
}

/// Runs a test whose root is a copy. Where the kernel has no such, the test must fail, and say so: then there is nothing to see.
fn run_copy(directory: &Path, test: &str) -> Option<Run> {
    let run = run_in(directory, test);
    let Some(words) = refusal_of_copies() else { return Some(run) };
    assert!(run.failed(), "{}", run.output);
    for words in ["did not run", "lay a private copy"].into_iter().chain(words) {
        assert!(run.output.contains(words), "{words:?} is not in this:\n{}", run.output);
    }
    None
}

fn passes(test: &str) {
    let directory = make_directory();
    if let Some(run) = run_copy(directory.path(), test) {
        assert!(run.passed(), "{}", run.output);
    }
}

// ---- What is written is private ----

#[body]
#[isolated(root = "overlay")]
fn changes_the_tree() {
    let directory = directory();
    assert_eq!(belljar::changes().expect("changes"), []);
    change(&directory).expect("change");
    assert_eq!(belljar::changes().expect("changes"), changes(&directory));
    // In directories of the root's own too.
    fs::write("/created", "").expect("write");
    let all = belljar::changes().expect("changes");
    assert!(all.contains(&Change::Created("/created".into())) && all.len() == 12, "{all:?}");
}

#[body]
#[isolated(uts)]
fn changes_the_hosts_tree() {
    change(&directory()).expect("change");
}

#[test]
fn the_hosts_tree_stays_as_it_is() {
    let directory = make_directory();
    let before = contents(directory.path());
    if let Some(run) = run_copy(directory.path(), "changes_the_tree") {
        assert!(run.passed(), "{}", run.output);
        assert!(!run.output.contains("what `changes_the_tree` has changed"), "{}", run.output);
    }
    assert_eq!(contents(directory.path()), before);
    assert!(!Path::new("/created").exists());
}

/// In a sandbox that stands for a machine on which an ordinary user works below a directory of root's.
#[isolated(uids = 65536)]
#[ignore = "needs root: .ci/run runs it"]
fn below_a_directory_of_roots() {
    let own = Path::new("/data/builds/ann");
    fs::create_dir_all(own).expect("mkdir");
    chown(own, Some(Uid::from_raw(1000)), Some(Gid::from_raw(1000))).expect("chown");
    let mut command = Command::new("setpriv");
    command.args(["--reuid=1000", "--regid=1000", "--clear-groups"]).arg(env::current_exe().expect("this binary"));
    let run = run(command.args(["--exact", "the_hosts_tree_stays_as_it_is"]).env("TMPDIR", own));
    assert!(run.passed(), "{}", run.output);
}

/// Around what is mounted in the tree, its directories are made again one by one, for their owners.
#[isolated(uids = 65536)]
#[ignore = "needs root: .ci/run runs it"]
fn owners_stay() {
    let home = Path::new("/data/ann");
    fs::create_dir_all(home.join("mounted")).expect("mkdir");
    fs::create_dir_all(home.join("beside")).expect("mkdir");
    fs::write(home.join("file"), "").expect("write");
    for path in [home.to_path_buf(), home.join("beside"), home.join("file")] {
        chown(&path, Some(Uid::from_raw(1000)), Some(Gid::from_raw(1001))).expect("chown");
    }
    fs::set_permissions(home.join("file"), fs::Permissions::from_mode(0o4755)).expect("chmod");
    let (tmpfs, flags) = (Some("tmpfs"), MsFlags::empty());
    mount(tmpfs, &home.join("mounted"), tmpfs, flags, None::<&str>).expect("mount");
    let run = run_in(home, "sees_owners");
    assert!(run.passed(), "{}", run.output);
}

#[body]
#[isolated(root = "overlay", uids = 65536)]
fn sees_owners() {
    for (name, mode) in [("", 0o40755), ("beside", 0o40755), ("file", 0o104_755)] {
        let metadata = fs::metadata(directory().join(name)).expect("stat");
        assert_eq!((metadata.uid(), metadata.gid(), metadata.mode()), (1000, 1001, mode), "{name:?}");
    }
    assert_eq!(belljar::changes().expect("changes"), []);
}

/// Files of the host can be given to others, in the copy.
#[isolated(root = "overlay", uids = 65536)]
#[ignore = "needs root: .ci/run runs it"]
fn files_can_be_given_away() {
    chown("/etc/hosts", Some(Uid::from_raw(4711)), Some(Gid::from_raw(4712))).expect("chown");
    let metadata = fs::metadata("/etc/hosts").expect("stat");
    assert_eq!((metadata.uid(), metadata.gid()), (4711, 4712));
    assert_eq!(belljar::changes().expect("changes"), [Change::Changed("/etc/hosts".into())]);
}

/// The twin.
#[test]
fn without_a_copy_the_tree_changes() {
    let directory = make_directory();
    let before = contents(directory.path());
    let run = run_in(directory.path(), "changes_the_hosts_tree");
    assert!(run.passed(), "{}", run.output);
    assert_ne!(contents(directory.path()), before);
}

/// No path leads out of a copy, and no namespace: what is outside is not mounted inside.
#[body]
#[isolated(root = "overlay")]
fn looks_for_a_way_out() {
    let inode = |path: &str| fs::metadata(path).map(|root| (root.dev(), root.ino())).expect("stat");
    assert_eq!(inode("/.."), inode("/"));
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    let at_root = mounts.lines().filter(|line| line.split(' ').nth(4) == Some("/"));
    assert_eq!(at_root.count(), 1, "{mounts}");
    let out = Path::new("/..").join(directory().strip_prefix("/").expect("an absolute path"));
    fs::remove_file(out.join("removed")).expect("remove");
    let mounts = Namespace::fresh(Kind::Mount).expect("a namespace");
    mounts.enter(|| fs::write(out.join("changed"), "")).expect("setns").expect("write");
}

#[test]
fn nothing_leads_out() {
    let directory = make_directory();
    let before = contents(directory.path());
    if let Some(run) = run_copy(directory.path(), "looks_for_a_way_out") {
        assert!(run.passed(), "{}", run.output);
        assert_eq!(contents(directory.path()), before);
    }
}

/// The kernel makes user namespaces only for those who have the root of their mount namespace.
#[body]
#[isolated(root = "overlay", user = 1000)]
fn is_another_user() {
    assert_eq!(getuid().as_raw(), 1000);
    Namespace::fresh(Kind::User).expect("a user namespace");
}

#[test]
fn copies_can_be_for_users() {
    passes("is_another_user");
}

/// What two tests write, neither finds.
#[body]
#[isolated(root = "overlay")]
fn claims_a_file() {
    for path in [Path::new("/etc"), Path::new("/"), Path::new("/usr"), &directory()] {
        fs::File::create_new(path.join("claimed")).expect("the only one");
    }
}

#[body]
#[isolated(root = "overlay")]
fn claims_the_same_file() {
    claims_the_same();
}

fn claims_the_same() {
    for path in [Path::new("/etc"), Path::new("/"), Path::new("/usr"), &directory()] {
        fs::File::create_new(path.join("claimed")).expect("the only one");
    }
}

#[body]
#[isolated(root = "overlay")]
#[should_panic(expected = "the only one")]
fn claims_a_file_twice() {
    claims_the_same();
    claims_the_same();
}

#[test]
fn copies_are_not_shared() {
    let directory = make_directory();
    let mut command = this_binary();
    let run = run(command.args(["body", "claims*", "--exact", "--test-threads=1"]).env(DIRECTORY, directory.path()));
    let expected = if refusal_of_copies().is_none() { "3 passed; 0 failed" } else { "0 passed; 3 failed" };
    assert!(run.output.contains(expected), "{}", run.output);
}

// ---- What a copy of the host's tree is like ----

#[body]
#[isolated(root = "overlay")]
fn is_like_the_host() {
    // Root inside edits what root edits, whoever runs this.
    fs::write("/etc/hosts", "10.0.0.5 db\n").expect("write");
    fs::write("/etc/belljar", "").expect("write");
    fs::write("/etc/passwd+", "root:x:0:0::/:/bin/sh\n").expect("write");
    fs::rename("/etc/passwd+", "/etc/passwd").expect("rename");
    let mut expected = vec![
        Change::Created("/etc/belljar".into()),
        Change::Changed("/etc/hosts".into()),
        Change::Changed("/etc/passwd".into()),
    ];
    for directory in ["/opt", "/usr/local/bin", "/var/lib"].map(Path::new).into_iter().filter(|path| path.is_dir()) {
        fs::create_dir(directory.join("belljar")).expect("mkdir");
        expected.push(Change::Created(directory.join("belljar")));
    }
    assert_eq!(belljar::changes().expect("changes"), expected);
    // What the kernel makes fits the namespaces.
    assert_eq!(fs::read_link("/proc/self").expect("proc"), Path::new(&std::process::id().to_string()));
    assert!(Path::new("/sys/class/net/lo").exists() && !Path::new("/sys/class/net/eth0").exists());
    fs::write("/dev/null", "gone").expect("write");
    fs::write("/dev/shm/file", "").expect("write");
    assert!(fs::read_dir("/dev/pts").is_ok() && Path::new("/dev/fd/0").exists());
    sethostname("copy").expect("sethostname");
    assert!(Command::new("sh").args(["-c", "exit 0"]).status().expect("sh").success());
    assert_eq!(env::current_dir().ok(), env::var_os(CWD).map(PathBuf::from));
    // It can be written to as well: it is no more than a part of the copy.
    if getuid().is_root() {
        fs::write("/tmp/belljar-file", "").expect("write");
    }
}

#[test]
fn a_copy_is_like_the_host() {
    passes("is_like_the_host");
}

/// Programs that edit several files at once, with locks.
#[body]
#[isolated(root = "overlay")]
fn adds_a_user() {
    let run = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).output().expect(program);
        assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    };
    run("useradd", &["--no-create-home", "--uid", "4711", "belljar"]);
    assert_eq!(run("id", &["-u", "belljar"]).trim(), "4711");
    let changed = belljar::changes().expect("changes");
    assert!(changed.contains(&Change::Changed("/etc/passwd".into())), "{changed:?}");
    assert!(changed.contains(&Change::Changed("/etc/shadow".into())), "{changed:?}");
}

#[test]
fn users_can_be_added() {
    // Not every system has it.
    if Path::new("/usr/sbin/useradd").exists() {
        passes("adds_a_user");
    }
    assert!(!fs::read_to_string("/etc/passwd").expect("passwd").contains("4711"));
}

// ---- A directory ----

#[body]
#[isolated(root = "/etc")]
fn has_a_directory_for_a_root() {
    assert!(Path::new("/passwd").is_file() && !Path::new("/etc").exists());
    // The directory is root's inside, and what is in it belongs to whoever it belongs to.
    fs::write("/new", "").expect("write");
    fs::rename("/new", "/passwd").expect("rename");
    fs::write("/new", "").expect("write");
    fs::remove_file("/group").expect("remove");
    let expected =
        [Change::Removed("/group".into()), Change::Created("/new".into()), Change::Changed("/passwd".into())];
    assert_eq!(belljar::changes().expect("changes"), expected);
    let mounts = fs::read_to_string("/proc/self/mounts").expect("proc");
    assert!(mounts.lines().any(|mount| mount.starts_with("overlay / overlay ")), "{mounts}");
    // What is tested is there, if it is on the host.
    println!("sees {}", Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml").is_file());
}

#[test]
fn a_directory_can_be_the_root() {
    let Some(run) = run_copy(Path::new("/"), "has_a_directory_for_a_root") else { return };
    let sees = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml").is_file();
    assert!(run.passed() && run.output.contains(&format!("sees {sees}\n")), "{}", run.output);
    assert!(fs::metadata("/etc/passwd").expect("passwd").len() > 0);
    assert!(Path::new("/etc/group").exists() && !Path::new("/etc/new").exists());
}

#[body]
#[isolated(root = "/nonexistent/image")]
fn has_no_root() {}

#[body]
#[isolated(root = "./Cargo.toml")]
fn has_a_file_for_a_root() {}

#[test]
fn a_directory_that_is_missing_is_named() {
    for (test, path) in [("has_no_root", "/nonexistent/image"), ("has_a_file_for_a_root", "/Cargo.toml")] {
        let run = belljar_tests::run_body(test);
        assert!(run.failed(), "{}", run.output);
        for part in ["lay a private copy", path, "no such directory"] {
            assert!(run.output.contains(part), "{test} lacks {part:?}: {}", run.output);
        }
    }
}
