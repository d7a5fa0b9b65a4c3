//! What is said where the host does not let a sandbox be made: the test fails, with the step, the path, the error and
//! the cause, and its body never runs.
//!
//! Each row is an isolated test that makes such a host of its own sandbox, and then runs [`victim`] there. As a sandbox
//! that nothing has been done to is a good host, no row fails by itself.

mod limited;

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fs};

use belljar::isolated;
use belljar::ns::{Kind, Namespace};
use belljar_tests::{Run, body, refuse, run_body, this_binary};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::unistd::{chroot, close, pipe2, read};

belljar_tests::bodies!();

const NONE: Option<&str> = None;

/// What the body of [`victim`] writes.
const RAN: &str = "the body ran";

#[body]
#[isolated]
fn victim() {
    println!("{RAN}");
}

#[body]
#[isolated]
#[should_panic]
fn victim_that_should_panic() {
    panic!("{RAN}");
}

/// Runs both victims, and checks that they fail for the reason that these words tell.
fn check_refused(words: &[&str]) {
    let runs = [run_body("victim"), run_body("victim_that_should_panic")];
    for Run { output, .. } in runs.iter().inspect(|run| assert!(run.failed(), "{}", run.output)) {
        assert!(!output.contains(RAN), "{output}");
        for word in words {
            assert!(output.contains(word), "{word:?} is not in this:\n{output}");
        }
    }
}

#[isolated]
fn a_host_that_refuses_nothing() {
    let run = run_body("victim");
    assert!(run.passed() && run.output.contains(RAN), "{}", run.output);
    let run = run_body("victim_that_should_panic");
    assert!(run.passed(), "{}", run.output);
}

#[isolated]
fn a_host_without_user_namespaces() {
    fs::write("/proc/sys/user/max_user_namespaces", "0").expect("write");
    check_refused(&[
        "user and mount namespaces",
        "ENOSPC",
        "seen:   user.max_user_namespaces is 0",
        "remedy: sudo sysctl -w user.",
    ]);
}

#[isolated]
fn a_host_without_network_namespaces() {
    fs::write("/proc/sys/user/max_net_namespaces", "0").expect("write");
    check_refused(&[
        "enter new mount, network",
        "ENOSPC",
        "seen:   user.max_net_namespaces is 0",
        "remedy: sudo sysctl -w user.",
    ]);
}

#[isolated]
fn a_chroot() {
    for entry in fs::read_dir("/").expect("read_dir").map(|entry| entry.expect("an entry")) {
        let place = Path::new("/tmp/root").join(entry.file_name());
        if entry.path() != Path::new("/tmp") && entry.path().is_dir() {
            bind(&entry.path(), &place);
        } else if let Ok(target) = fs::read_link(entry.path()) {
            symlink(target, place).expect("symlink");
        }
    }
    // Where the build is may be below.
    let binary = env::current_exe().expect("current_exe");
    bind(binary.parent().expect("a directory"), &place_in("/tmp/root", binary.parent().expect("a directory")));
    fs::create_dir_all("/tmp/root/tmp").expect("create_dir");
    chroot("/tmp/root").expect("chroot");
    env::set_current_dir("/").expect("chdir");
    check_refused(&["user and mount namespaces", "EPERM", "chroot", "seen:   /proc/self/mountinfo has nothing at /"]);
    // The kernel's setting comes first, and is not taken for a filter.
    let kernel = place_in("/", Path::new("/proc/sys/kernel"));
    mount(Some("tmpfs"), &kernel, Some("tmpfs"), MsFlags::empty(), NONE).expect("mount");
    fs::write(kernel.join("unprivileged_userns_clone"), "0\n").expect("write");
    check_refused(&["user and mount namespaces", "EPERM", "seen:   kernel.unprivileged_userns_clone is 0", "clone=1"]);
}

fn place_in(root: &str, path: &Path) -> PathBuf {
    Path::new(root).join(path.strip_prefix("/").expect("an absolute path"))
}

fn bind(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("create_dir");
    mount(Some(from), to, NONE, MsFlags::MS_BIND | MsFlags::MS_REC, NONE).expect("mount");
}

#[isolated]
fn a_host_that_masks_proc() {
    // A sandbox of root's has another proc below `/sys`, which would do.
    while umount2("/sys", MntFlags::MNT_DETACH).is_ok() {}
    if Path::new("/sys/proc").exists() {
        umount2("/sys/proc", MntFlags::MNT_DETACH).expect("umount");
    }
    mount(Some("tmpfs"), "/proc/driver", Some("tmpfs"), MsFlags::empty(), NONE).expect("mount");
    check_refused(&["mount a file system in the sandbox: /", "EPERM", "masked", "systempaths=unconfined"]);
    check_refused(&["seen:   /proc/self/mountinfo has", "/proc/driver", "remedy: sudo umount", " /proc/driver"]);
    check_in_places(&[
        ("/.dockerenv", "docker run --security-opt systempaths=unconfined\n"),
        ("/run/.containerenv", "podman run --security-opt unmask=ALL\n"),
        ("KUBERNETES_SERVICE_HOST", "hostUsers: false; in the container's securityContext: procMount: Unmasked\n"),
        ("/dev/lxd", "lxc config set CONTAINER security.nesting=true"),
    ]);
    // In the host's tree, a whole proc of root's would lie at `/proc/sys`. What is at `/sys` is no reason.
    if Path::new("/sys/sys").exists() {
        umount2("/sys/sys", MntFlags::MNT_DETACH).expect("umount");
    }
    let run = run_body("victim_with_the_hosts_tree");
    assert!(run.failed() && run.output.contains("remedy: sudo umount"), "{}", run.output);
}

/// Runs a victim in places that have these marks, and checks what remedy it is told.
fn check_in_places(places: &[(&str, &str)]) {
    for (mark, remedy) in places {
        let mut command = this_binary();
        command.args(["--exact", "body", "victim", "--show-output"]);
        let file = mark.starts_with('/').then_some(mark);
        match file {
            Some(file) => fs::write(file, "").expect("write"),
            None => drop(command.env(mark, "10.0.0.1")),
        }
        let run = belljar_tests::run(&mut command);
        assert!(run.failed() && !run.output.contains(RAN), "{mark}: {}", run.output);
        let line = run.output.lines().find(|line| line.starts_with("  remedy: ")).expect("a remedy");
        assert!(format!("{line}\n").contains(remedy), "{mark}: {remedy:?} is not in this:\n{}", run.output);
        file.into_iter().for_each(|file| fs::remove_file(file).expect("remove"));
    }
}

/// As in a container whose filter is older than the call.
#[isolated]
fn a_host_without_clone3() {
    // With another error, the C library starts no threads.
    refuse(libc::SYS_clone3, None, Errno::ENOSYS);
    for victim in ["victim", "victim_that_makes_namespaces"] {
        let run = run_body(victim);
        assert!(run.passed() && run.output.contains(RAN), "{}", run.output);
    }
}

#[body]
#[isolated]
fn victim_that_makes_namespaces() {
    for kind in [Kind::Net, Kind::Pid, Kind::Time] {
        let fresh = Namespace::fresh(kind).expect("a namespace");
        assert_ne!(fresh.identity(), Namespace::current(kind).expect("this one").identity(), "{kind:?}");
        // What makes it has none of this process's descriptors when it has told that it is there.
        let (reader, writer) = pipe2(OFlag::O_NONBLOCK).expect("pipe");
        // Wherever they are.
        let above = fcntl(&writer, FcntlArg::F_DUPFD(200)).expect("fcntl");
        let _another = Namespace::fresh(kind).expect("a namespace");
        drop(writer);
        close(above).expect("close");
        assert_eq!(read(&reader, &mut [0]), Ok(0), "{kind:?}");
    }
    println!("{RAN}");
}

#[body]
#[isolated]
fn victim_that_looks_for_descriptors() {
    let open: Vec<_> = (3..255).filter(|fd| Path::new(&format!("/proc/self/fd/{fd}")).exists()).collect();
    assert!(open.is_empty(), "{open:?}");
    println!("{RAN}");
}

/// As there: what is open is closed all the same.
#[isolated]
fn a_host_without_close_range() {
    for errno in [None].into_iter().chain([Errno::ENOSYS, Errno::EPERM, Errno::EACCES].map(Some)) {
        if let Some(errno) = errno {
            refuse(libc::SYS_close_range, None, errno);
        }
        for victim in ["victim_that_looks_for_descriptors", "victim_that_makes_namespaces"] {
            let mut command = Command::new("sh");
            command.args(["-c", "exec 7< /etc/passwd; exec \"$0\" \"$@\""]);
            command.arg(this_binary().get_program()).args(["--exact", "body", victim, "--show-output"]);
            command.env("RUST_BACKTRACE", "0");
            let run = belljar_tests::run(&mut command);
            assert!(run.passed() && run.output.contains(RAN), "{errno:?}: {}", run.output);
        }
    }
}

#[body]
#[isolated(net, bind = ["/mnt:/srv"])]
fn victim_that_is_shown_a_mount() {
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    let options = mounts.lines().filter_map(|line| line.split_once(" /srv ")?.1.split(' ').next());
    assert_eq!(options.collect::<Vec<_>>(), ["ro,nosuid,nodiratime"]);
    println!("{RAN}");
}

/// As before Linux 5.12: what was mounted with flags keeps them. The kernel lets nobody change them.
#[isolated]
fn a_host_without_mount_setattr() {
    fs::create_dir("/srv").expect("mkdir");
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_STRICTATIME | MsFlags::MS_NODIRATIME;
    mount(Some("tmpfs"), "/mnt", Some("tmpfs"), flags, NONE).expect("mount");
    refuse(libc::SYS_mount_setattr, None, Errno::ENOSYS);
    for victim in ["victim", "victim_that_is_shown_a_mount"] {
        let run = run_body(victim);
        assert!(run.passed() && run.output.contains(RAN), "{}", run.output);
    }
}

/// As in a container: then a sandbox's is read-only as well.
#[isolated]
fn a_host_whose_sysfs_is_read_only() {
    // The kernel makes another only where there is one.
    mount(Some("sysfs"), "/mnt", Some("sysfs"), MsFlags::MS_RDONLY, NONE).expect("mount");
    while umount2("/sys", MntFlags::MNT_DETACH).is_ok() {}
    if Path::new("/sys/sys").exists() {
        umount2("/sys/sys", MntFlags::MNT_DETACH).expect("umount");
    }
    mount(Some("/mnt"), "/sys", NONE, MsFlags::MS_MOVE, NONE).expect("mount");
    for victim in ["victim", "victim_with_the_hosts_tree"] {
        let run = run_body(victim);
        assert!(run.passed() && run.output.contains(RAN), "{}", run.output);
    }
}

#[body]
#[isolated(net)]
fn victim_with_the_hosts_tree() {
    assert!(Path::new("/sys/class/net/lo").exists());
    assert!(fs::write("/sys/class/net/lo/tx_queue_len", "1").is_err());
    println!("{RAN}");
}

/// As in a container with Docker's default filter.
#[isolated]
fn a_host_that_filters_system_calls() {
    for call in [libc::SYS_clone, libc::SYS_unshare] {
        refuse(call, Some((0, libc::CLONE_NEWUSER)), Errno::EPERM);
    }
    refuse(libc::SYS_clone3, None, Errno::ENOSYS);
    check_refused(&[
        "user and mount namespaces",
        "seccomp",
        "seen:   Seccomp: 2 in",
        "clone(CLONE_NEWUSER|CLONE_FS) is refused with EPERM",
    ]);
    check_refused(&["remedy: run the tests without that filter", "seccomp=unconfined"]);
    check_in_places(&[("/.dockerenv", "docker run --security-opt seccomp=unconfined")]);
    // All that is in the way is told at once.
    mount(Some("tmpfs"), "/proc/driver", Some("tmpfs"), MsFlags::empty(), NONE).expect("mount");
    check_in_places(&[
        ("/.dockerenv", "seccomp=unconfined --security-opt systempaths=unconfined\n"),
        ("KUBERNETES_SERVICE_HOST", "securityContext: seccompProfile: {type: Unconfined}; procMount: Unmasked\n"),
    ]);
}

/// The twin: what is refused for another reason is not laid to a filter that is there.
#[isolated]
fn a_filter_that_is_not_to_blame() {
    refuse(libc::SYS_swapon, None, Errno::EPERM);
    fs::write("/proc/sys/user/max_user_namespaces", "0").expect("write");
    check_refused(&["user and mount namespaces", "seen:   user.max_user_namespaces is 0"]);
}

/// Root that may not map root, as in a container that has lost the capability.
#[isolated]
fn a_root_without_a_capability() {
    let mut command = Command::new("setpriv");
    command.args(["--bounding-set=-setfcap".as_ref(), this_binary().get_program()]);
    command.args(["--exact", "body", "victim", "--show-output"]);
    check_told(&mut command, &["map the ids", "uid_map", "EPERM", "CAP_SETFCAP", "seen:   CapEff"]);
}

/// Somebody whose number is nobody's.
#[isolated]
fn a_user_without_a_number() {
    let mut command = Command::new("unshare");
    command.args(["--user".as_ref(), this_binary().get_program()]);
    command.args(["--exact", "body", "victim", "--show-output"]);
    check_told(
        &mut command,
        &["user and mount namespaces", "EPERM", "has no number", "seen:   /proc/self/uid_map or gid_map lacks it"],
    );
}

#[isolated]
fn a_host_without_proc() {
    let mut command = this_binary();
    command.args(["--exact", "body", "victim", "--show-output"]);
    while umount2("/proc", MntFlags::MNT_DETACH).is_ok() {}
    check_told(
        &mut command,
        &["map the ids", ": /proc/self/setgroups", "ENOENT", "there is no /proc", "mount -t proc"],
    );
}

#[isolated]
fn a_host_with_a_read_only_proc() {
    mount(NONE, "/proc", NONE, MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY, NONE).expect("mount");
    check_refused(&["map the ids", "EROFS", "/proc is mounted read-only", "remount,rw"]);
}

#[isolated]
fn a_host_without_sysfs() {
    while umount2("/sys", MntFlags::MNT_DETACH).is_ok() {}
    if Path::new("/sys/sys").exists() {
        umount2("/sys/sys", MntFlags::MNT_DETACH).expect("umount");
    }
    check_refused(&["mount a file system in the sandbox: /sys", "EPERM", "there is no sysfs", "mount -t sysfs"]);
}

#[isolated]
fn a_host_without_dev_null() {
    umount2("/dev/null", MntFlags::MNT_DETACH).expect("umount");
    fs::remove_file("/dev/null").expect("remove");
    let mut command = this_binary();
    command.args(["--exact", "body", "victim", "--show-output"]).stdin(Stdio::inherit());
    check_told(&mut command, &["prepare the zygote, which makes all sandboxes: /dev/null", "ENOENT", "devtmpfs"]);
}

/// Runs `command`, a victim, and checks that it fails for the reason that these words tell.
fn check_told(command: &mut Command, words: &[&str]) {
    let run = belljar_tests::run(command);
    assert!(run.failed() && !run.output.contains(RAN), "{}", run.output);
    for word in words {
        assert!(run.output.contains(word), "{word:?} is not in this:\n{}", run.output);
    }
}

/// As in a container of Podman's.
#[isolated]
fn a_host_that_filters_what_root_of_a_namespace_may() {
    refuse(libc::SYS_sethostname, None, Errno::EPERM);
    check_refused(&[
        "set the host name",
        "EPERM",
        "a seccomp filter refuses",
        "root of a namespace",
        "seccomp=unconfined",
    ]);
}

#[body]
#[isolated(time)]
fn victim_with_clocks() {
    println!("{RAN}");
}

/// What a process sees of a kernel without time namespaces.
#[body]
fn hides_time_namespaces() {
    mount(Some("tmpfs"), "/proc/self/ns", Some("tmpfs"), MsFlags::empty(), NONE).expect("mount");
    victim_with_clocks();
}

#[isolated]
fn a_host_without_time_namespaces() {
    let run = run_body("victim_with_clocks");
    assert!(run.passed() && run.output.contains(RAN), "{}", run.output);
    refuse(libc::SYS_unshare, Some((0, libc::CLONE_NEWTIME)), Errno::EINVAL);
    let run = run_body("hides_time_namespaces");
    assert!(run.failed() && !run.output.contains(RAN), "{}", run.output);
    for words in ["time namespace", "EINVAL", "has no time namespaces", "CONFIG_TIME_NS"] {
        assert!(run.output.contains(words), "{words:?} is not in this:\n{}", run.output);
    }
    // All else is there.
    assert!(run_body("victim").passed());
}
