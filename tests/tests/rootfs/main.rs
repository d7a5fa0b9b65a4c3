//! The file system of a sandbox with `mount`: what is private, what is the host's, and what can be changed.

mod kernels;

use std::env;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use belljar::isolated;
use belljar_tests::{body, this_binary};
use nix::mount::{MsFlags, mount};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

belljar_tests::bodies!();

fn is_writable(directory: &Path) -> io::Result<()> {
    let file = directory.join("belljar-tests");
    fs::write(&file, "text")?;
    fs::remove_file(&file)
}

fn output(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().expect(program);
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

// ---- Private ----

#[isolated]
fn private_directories_are_empty_and_writable() {
    let home = PathBuf::from(env::var_os("HOME").expect("HOME"));
    let mut directories: Vec<_> =
        ["/tmp", "/run", "/var/tmp", "/var/lib", "/var/log", "/dev/shm", "/etc", "/", "/mnt"].map(PathBuf::from).into();
    directories.push(home);
    directories.push(env::temp_dir());
    for directory in directories {
        is_writable(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    }
    // The workspace, which is shown, may lie below others, such as `/var/tmp`.
    for directory in ["/dev/shm", "/var/cache", "/var/log"] {
        assert_eq!(fs::read_dir(directory).expect("read").count(), 0, "{directory}");
    }
}

#[isolated]
fn temporary_directories_are_for_everybody() {
    for directory in ["/tmp", "/var/tmp", "/dev/shm"] {
        let mode = fs::metadata(directory).expect("stat").permissions().mode();
        assert_eq!(mode & 0o7777, 0o1777, "{directory}");
    }
}

/// Writes where a neighbour does, and finds nothing of it.
fn claim_a_file() {
    for path in ["/tmp/claimed", "/run/claimed", "/etc/claimed", "/claimed"] {
        File::create_new(path).expect("the only one");
    }
}

#[isolated]
fn claims_a_file() {
    claim_a_file();
}

#[isolated]
fn claims_the_same_file() {
    claim_a_file();
}

#[isolated]
fn without_a_second_sandbox_the_file_is_there() {
    claim_a_file();
    assert!(std::panic::catch_unwind(claim_a_file).is_err());
}

#[isolated]
fn mounts_what_it_likes() {
    fs::create_dir("/mnt/tmpfs").expect("mkdir");
    mount(Some("tmpfs"), "/mnt/tmpfs", Some("tmpfs"), MsFlags::empty(), Some("size=1m")).expect("mount");
    is_writable(Path::new("/mnt/tmpfs")).expect("write");
    let none: Option<&str> = None;
    mount(Some("/usr"), "/mnt", none, MsFlags::MS_BIND | MsFlags::MS_REC, none).expect("bind");
    assert!(Path::new("/mnt/bin").exists());
    nix::mount::umount2("/mnt", nix::mount::MntFlags::MNT_DETACH).expect("umount");
}

#[isolated(net)]
fn mounts_what_it_likes_in_the_hosts_tree() {
    mount(Some("tmpfs"), "/usr", Some("tmpfs"), MsFlags::empty(), Some("size=1m")).expect("mount");
    assert!(!Path::new("/usr/bin").exists());
}

// ---- The host's ----

#[isolated]
fn nothing_of_the_host_can_be_written_to() {
    let target = env::current_exe().expect("exe").parent().expect("deps").to_path_buf();
    let directories = [Path::new("/usr"), Path::new(env!("CARGO_MANIFEST_DIR")), &target];
    for directory in directories {
        let error = is_writable(directory).expect_err("read-only");
        assert_eq!(error.kind(), io::ErrorKind::ReadOnlyFilesystem, "{}", directory.display());
    }
}

#[isolated]
fn all_mounts_of_the_host_are_read_only() {
    let table = fs::read_to_string("/proc/self/mountinfo").expect("read");
    let ours = ["tmpfs", "proc", "sysfs", "devpts", "mqueue", "devtmpfs"];
    let mut seen = 0;
    for line in table.lines() {
        let fields: Vec<_> = line.split(' ').collect();
        let separator = fields.iter().position(|field| *field == "-").expect("separator");
        let (point, options, kind) = (fields[4], fields[5], fields[separator + 1]);
        if ours.contains(&kind) && (point == "/" || !point.starts_with("/usr")) {
            continue;
        }
        seen += 1;
        assert!(options.split(',').any(|option| option == "ro"), "{line}");
    }
    assert!(seen > 0, "at least /usr");
}

#[isolated]
fn the_package_is_where_it_was() {
    assert!(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml").exists());
    assert!(Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("workspace").join("Cargo.lock").exists());
    let binary = env::current_exe().expect("exe");
    assert!(File::open(binary).is_ok());
}

/// Prints where it is, for a comparison with where the binary was started.
#[body]
#[isolated]
fn prints_its_working_directory() {
    println!("cwd {}", env::current_dir().expect("cwd").display());
}

#[test]
fn the_working_directory_stays() {
    let package = Path::new(env!("CARGO_MANIFEST_DIR")).canonicalize().expect("canonical");
    for directory in [package.as_path(), Path::new("/usr"), Path::new("/"), Path::new("/proc"), Path::new("/var")] {
        let mut command = this_binary();
        command.args(["--exact", "body", "prints_its_working_directory", "--show-output"]);
        let run = belljar_tests::run(command.current_dir(directory));
        let line = format!("cwd {}\n", directory.display());
        assert!(run.passed() && run.output.contains(&line), "{}: {}", directory.display(), run.output);
    }
}

#[isolated]
fn the_target_tmpdir_is_private_and_writable() {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR"));
    is_writable(directory).expect("write");
    assert_eq!(fs::read_dir(directory).expect("read").count(), 0);
    // The target directory around it is the host's.
    let kind = |path: &Path| nix::sys::statfs::statfs(path).expect("statfs").filesystem_type();
    assert_eq!(kind(directory), kind(Path::new("/")));
    assert_ne!(
        directory.metadata().expect("stat").dev(),
        directory.parent().expect("target").metadata().expect("stat").dev()
    );
}

/// What its host mounts while it runs.
const LATE: &str = "/opt/place/late";

/// Tells the host that it has begun, and waits for it to have mounted something.
#[body]
#[isolated]
fn does_not_see_what_is_mounted_later() {
    fs::write("/opt/begun", "!").expect("write");
    assert_eq!(fs::read("/opt/mounted").expect("read"), b"!");
    assert!(Path::new("/opt/place").exists() && !Path::new(LATE).exists());
}

/// Mounts something where the mounts of `/` are shared with all copies of them, as systemd has it, when `run` has begun, and has it go on.
fn mount_during<T: Send>(run: impl FnOnce() -> T + Send) -> T {
    let shared = MsFlags::MS_REC | MsFlags::MS_SHARED;
    mount(None::<&str>, "/", None::<&str>, shared, None::<&str>).expect("share");
    fs::create_dir_all("/opt").expect("mkdir");
    mount(Some("tmpfs"), "/opt", Some("tmpfs"), MsFlags::empty(), None::<&str>).expect("mount");
    fs::create_dir("/opt/place").expect("mkdir");
    for fifo in ["/opt/begun", "/opt/mounted"] {
        mkfifo(fifo, Mode::S_IRWXU).expect("mkfifo");
    }
    thread::scope(|scope| {
        let run = scope.spawn(run);
        assert_eq!(fs::read("/opt/begun").expect("read"), b"!");
        mount(Some("tmpfs"), "/opt/place", Some("tmpfs"), MsFlags::empty(), None::<&str>).expect("mount");
        File::create_new(LATE).expect("create");
        fs::write("/opt/mounted", "!").expect("write");
        run.join().expect("no panic")
    })
}

#[isolated(timeout = "60s")]
fn what_the_host_mounts_later_is_not_there() {
    let run = mount_during(|| belljar_tests::run_body("does_not_see_what_is_mounted_later"));
    assert!(run.passed(), "{}", run.output);
}

/// The same without a sandbox's doing.
#[isolated(timeout = "60s")]
fn what_is_mounted_later_comes_to_a_copy_of_the_mounts() {
    let script = format!("printf ! > /opt/begun && [ \"$(cat /opt/mounted)\" = ! ] && ls {LATE}");
    let arguments = ["-U", "-r", "-m", "--propagation", "unchanged", "sh", "-c", &script];
    assert_eq!(mount_during(|| output("unshare", &arguments)).trim_end(), LATE);
}

// ---- Tools ----

#[isolated]
fn tools_of_the_host_are_usable() {
    assert_eq!(output("sh", &["-c", "echo $((6 * 7))"]), "42\n");
    assert!(output("id", &[]).starts_with("uid=0(root) gid=0(root)"));
    assert_eq!(output("cat", &["/proc/self/comm"]), "cat\n");
}

/// A program in a directory of `PATH` that belongs to no system: its library lies beside that directory.
#[body]
#[isolated]
fn runs_the_tool() {
    assert_eq!(output("belljar-tests-tool", &[]), "from beside\n");
    assert_eq!(output("belljar-tests-other", &[]), "alone\n");
}

#[test]
fn tools_come_with_what_lies_beside_them() {
    let directory = tempfile::tempdir().expect("tempdir");
    let executable = |path: &Path, text: &str| {
        fs::create_dir_all(path.parent().expect("parent")).expect("mkdir");
        fs::write(path, text).expect("write");
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("chmod");
    };
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).expect("chmod");
    let (tool, other) = (directory.path().join("tool"), directory.path().join("home/.local"));
    let script = format!("#!/bin/sh\ncat {}\n", tool.join("lib/text").display());
    executable(&tool.join("bin/belljar-tests-tool"), &script);
    executable(&other.join("bin/belljar-tests-other"), "#!/bin/sh\necho alone\n");
    fs::create_dir(tool.join("lib")).expect("mkdir");
    fs::write(tool.join("lib/text"), "from beside\n").expect("write");
    let path = env::var_os("PATH").unwrap_or_default();
    let directories = [tool.join("bin"), other.join("bin")].into_iter().chain(env::split_paths(&path));
    let mut command = this_binary();
    command.args(["--exact", "body", "runs_the_tool"]);
    command.env("PATH", env::join_paths(directories).expect("a path")).env("HOME", directory.path().join("home"));
    let run = belljar_tests::run(&mut command);
    assert!(run.passed(), "{}", run.output);
}

// ---- What the environment names ----

/// In whatever the environment names, `HOME` and `TMPDIR` are private, and all else is there.
#[body]
#[isolated]
fn finds_all_it_needs() {
    for variable in ["HOME", "TMPDIR", "XDG_RUNTIME_DIR"] {
        let Some(directory) = env::var_os(variable).map(PathBuf::from) else { continue };
        let expected = !env::var("READ_ONLY").is_ok_and(|read_only| read_only == variable);
        assert_eq!(is_writable(&directory).is_ok(), expected, "{variable}: {}", directory.display());
        assert!(!directory.join("of-the-host").exists(), "{variable}: {}", directory.display());
    }
    assert!(File::open(env::current_exe().expect("exe")).is_ok());
    assert!(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml").exists());
    assert_eq!(output("sh", &["-c", "echo $((6 * 7))"]), "42\n");
    for directory in env::split_paths(&env::var_os("PATH").expect("PATH")) {
        assert!(directory.is_dir(), "{}", directory.display());
    }
}

#[test]
fn any_environment_does() {
    let directory = tempfile::tempdir().expect("tempdir");
    let base = directory.path().canonicalize().expect("canonical");
    fs::set_permissions(&base, fs::Permissions::from_mode(0o755)).expect("chmod");
    for path in ["home/bin", "home/x", "run", "data/home/project"] {
        fs::create_dir_all(base.join(path)).expect("create_dir");
    }
    fs::write(base.join("home/of-the-host"), "").expect("write");
    fs::write(base.join("data/home/of-the-host"), "").expect("write");
    symlink(base.join("home"), base.join("link")).expect("symlink");
    symlink("data", base.join("relative")).expect("symlink");
    let base = base.to_str().expect("UTF-8");
    let in_base = |path: &str| format!("{base}/{path}");
    let path_with = |path: &str| format!("/usr/bin:/bin:{}", in_base(path));
    // Each case is run twice: what the first run leaves on the host is in the way of the second.
    let cases: &[&[(&str, String)]] = &[
        &[("TMPDIR", "/var/run/belljar-tests".into())],
        &[("XDG_RUNTIME_DIR", "/var/run/belljar-tests/0".into())],
        &[("HOME", "/var/run/belljar-tests".into())],
        &[("HOME", in_base("home/bin/../x/.."))],
        &[("HOME", in_base("link"))],
        &[("HOME", in_base("relative/home")), ("TMPDIR", in_base("relative/home/project"))],
        &[("HOME", in_base("home")), ("PATH", path_with("home/x/../bin"))],
        &[("HOME", in_base("home")), ("PATH", path_with("link/bin"))],
        &[("HOME", in_base("link")), ("PATH", path_with("home/bin"))],
        &[("HOME", "/usr/sbin".into()), ("PATH", "/usr/bin:/bin:/usr/sbin".into()), ("READ_ONLY", "HOME".into())],
        &[("HOME", "/lib/belljar-tests".into()), ("READ_ONLY", "HOME".into())],
        &[("LD_LIBRARY_PATH", "/lib/x86_64-linux-gnu:/lib64:/lib".into())],
        &[("LD_LIBRARY_PATH", format!("{base}/x/../run:{base}/run"))],
        &[("CARGO", "/bin/cargo".into()), ("RUSTUP_HOME", "/bin".into())],
    ];
    for case in cases.iter().flat_map(|case| [case, case]) {
        let mut command = this_binary();
        command.args(["--exact", "body", "finds_all_it_needs"]);
        command.env("PATH", "/usr/bin:/bin").envs(case.iter().cloned());
        let run = belljar_tests::run(&mut command);
        assert!(run.passed(), "{case:?}: {}", run.output);
        assert!(!Path::new("/run/belljar-tests").exists(), "{case:?}");
    }
}

/// The package and the target directory may lie in what is private otherwise.
#[test]
fn what_is_tested_may_lie_in_the_home_directory() {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("target");
    let homes = [target.parent().expect("workspace"), package, target];
    for (home, tmpdir) in homes.iter().flat_map(|home| homes.map(|tmpdir| (home, tmpdir))) {
        let mut command = this_binary();
        command.args(["--exact", "body", "finds_the_test_binary"]).env("HOME", home).env("TMPDIR", tmpdir);
        let run = belljar_tests::run(&mut command);
        assert!(run.passed(), "{} and {}: {}", home.display(), tmpdir.display(), run.output);
    }
}

#[body]
#[isolated]
fn finds_the_test_binary() {
    assert!(File::open(env::current_exe().expect("exe")).is_ok());
    assert!(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml").exists());
}

/// The nodes in `/dev` are the host's own.
#[isolated]
fn devices_keep_their_modes() {
    for path in ["/dev/null", "/dev/full", "/dev/tty"] {
        // The mode that it has anyhow, in case this succeeds.
        let error = fs::set_permissions(path, fs::Permissions::from_mode(0o666)).expect_err(path);
        let refused = [io::ErrorKind::ReadOnlyFilesystem, io::ErrorKind::PermissionDenied];
        assert!(refused.contains(&error.kind()), "{path}: {error}");
    }
}

// ---- /etc ----

#[isolated]
fn etc_is_small_and_sound() {
    let root = nix::unistd::User::from_uid(0.into()).expect("getpwuid").expect("root");
    assert_eq!((root.name.as_str(), Some(root.dir)), ("root", env::var_os("HOME").map(PathBuf::from)));
    assert!(nix::unistd::Group::from_name("root").expect("getgrnam").is_some());
    let resolve = |name: &str| std::net::ToSocketAddrs::to_socket_addrs(&(name, 1)).expect("resolved").next();
    assert!(resolve("localhost").expect("an address").ip().is_loopback());
    for file in ["passwd", "group", "hosts", "hostname", "nsswitch.conf", "resolv.conf"] {
        let path = Path::new("/etc").join(file);
        OpenOptions::new().append(true).open(&path).expect("writable").write_all(b"\n").expect("write");
    }
    assert!(!Path::new("/etc/shadow").exists());
}

#[isolated]
fn hosts_can_be_rewritten() {
    fs::write("/etc/hosts", "192.0.2.7 tests.belljar.example\n").expect("write");
    let mut addresses = std::net::ToSocketAddrs::to_socket_addrs("tests.belljar.example:80").expect("resolved");
    assert_eq!(addresses.next().expect("an address").to_string(), "192.0.2.7:80");
}

// ---- /dev ----

#[isolated]
fn devices_work() {
    let read = |path: &str| {
        let mut bytes = [1; 16];
        File::open(path).expect(path).read_exact(&mut bytes).expect(path);
        bytes
    };
    assert_eq!(read("/dev/zero"), [0; 16]);
    assert_ne!(read("/dev/random"), read("/dev/urandom"));
    assert_eq!(File::open("/dev/null").expect("open").read(&mut [0]).expect("read"), 0);
    // Who lists the directory is told so too.
    let null = fs::read_dir("/dev").expect("read").map(|entry| entry.expect("an entry"));
    let null = null.into_iter().find(|entry| entry.file_name() == "null").expect("null");
    assert!(null.file_type().expect("a type").is_char_device());
    let full = OpenOptions::new().write(true).open("/dev/full").expect("open").write_all(b"x");
    assert_eq!(full.expect_err("full").kind(), io::ErrorKind::StorageFull);
    assert!(fs::metadata("/dev/tty").expect("stat").file_type().is_char_device());
    for name in ["fd", "stdin", "stdout", "stderr", "ptmx", "pts", "shm", "mqueue"] {
        assert!(fs::symlink_metadata(Path::new("/dev").join(name)).is_ok(), "{name}");
    }
    assert!(Path::new("/dev/fd/0").exists());
}

#[isolated]
fn terminals_can_be_made() {
    let master = OpenOptions::new().read(true).write(true).open("/dev/ptmx").expect("open");
    assert_eq!(fs::read_dir("/dev/pts").expect("read").count(), 2, "the terminal and ptmx");
    drop(master);
}

/// What comes of opening each device that not every host has.
fn opened_devices() -> Vec<String> {
    let open = |device: &str| OpenOptions::new().read(true).write(true).open(device).map(drop);
    let told = |device: &str| format!("device {device}: {:?}", open(device).map_err(|error| error.raw_os_error()));
    ["/dev/fuse", "/dev/net/tun"].map(told).into()
}

#[body]
#[isolated]
fn prints_its_devices() {
    opened_devices().iter().for_each(|line| println!("{line}"));
}

/// A device that this user may not open is refused inside as it is outside.
#[test]
fn optional_devices() {
    let run = belljar_tests::run_body("prints_its_devices");
    assert!(run.passed(), "{}", run.output);
    let inside: Vec<_> = run.output.lines().filter(|line| line.starts_with("device ")).collect();
    assert_eq!(inside, opened_devices());
}
