//! What is mounted in a sandbox can be mounted anew, by whoever runs the tests and in every kind of root: as programs do that make
//! namespaces within.

use std::fs;
use std::path::Path;

use belljar::isolated;
use belljar_tests::{fork, succeeds};
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::ForkResult;

const NONE: Option<&str> = None;

/// The file systems of the kernel's that a sandbox has, and where.
const KERNELS: [(&str, &str); 4] =
    [("proc", "/proc"), ("sysfs", "/sys"), ("devpts", "/dev/pts"), ("mqueue", "/dev/mqueue")];

/// Runs `body` in a process of its own, which must end well.
fn in_child(body: impl FnOnce()) {
    match fork() {
        ForkResult::Child => {
            body();
            std::process::exit(0)
        }
        ForkResult::Parent { child } => assert_eq!(waitpid(child, None), Ok(WaitStatus::Exited(child, 0))),
    }
}

/// Mounts all of them anew: over what is there, in place of it, and elsewhere. Those that belong to a network that the sandbox shares with
/// the host can be mounted in a network of their own only.
fn mount_anew() {
    let kinds = KERNELS.iter().filter(|(_, path)| Path::new(path).exists());
    for (kind, path) in kinds {
        match mount(Some(*kind), *path, Some(*kind), MsFlags::empty(), NONE) {
            // The kernel mounts nothing over itself, and has one of these for each network and each ipc namespace.
            Err(Errno::EBUSY) if ["sysfs", "mqueue"].contains(kind) => {}
            is_over => is_over.unwrap_or_else(|errno| panic!("{kind} over {path}: {errno}")),
        }
        // As often as something is there that lets itself be unmounted.
        while umount2(*path, MntFlags::MNT_DETACH).is_ok() {}
        mount(Some(*kind), *path, Some(*kind), MsFlags::empty(), NONE)
            .unwrap_or_else(|errno| panic!("{kind} in place of {path}: {errno}"));
        fs::create_dir_all("/tmp/elsewhere").expect("mkdir");
        mount(Some(*kind), "/tmp/elsewhere", Some(*kind), MsFlags::empty(), NONE)
            .unwrap_or_else(|errno| panic!("{kind} elsewhere: {errno}"));
        umount2("/tmp/elsewhere", MntFlags::MNT_DETACH).expect("umount");
    }
    assert!(Path::new("/proc/self/comm").exists() && Path::new("/sys/class/net/lo").exists());
}

/// What ip-netns(8) does to run a program in a network.
fn enter_a_network() {
    in_child(|| {
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).expect("unshare");
        mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_SLAVE, NONE).expect("mount");
        umount2("/sys", MntFlags::MNT_DETACH).expect("umount");
        mount(Some("sysfs"), "/sys", Some("sysfs"), MsFlags::empty(), NONE).expect("a sysfs");
        assert!(Path::new("/sys/class/net/lo").exists());
    });
}

#[isolated]
fn in_a_root_of_its_own() {
    enter_a_network();
    mount_anew();
}

#[isolated(net)]
fn in_the_hosts_tree() {
    enter_a_network();
    mount_anew();
}

#[isolated(mount)]
fn with_the_hosts_network() {
    enter_a_network();
    unshare(CloneFlags::CLONE_NEWNET).expect("unshare");
    mount_anew();
}

#[isolated(uts)]
fn with_the_hosts_tree_and_network() {
    in_child(|| {
        unshare(CloneFlags::CLONE_NEWNET).expect("unshare");
        mount(Some("sysfs"), "/sys", Some("sysfs"), MsFlags::empty(), NONE).expect("a sysfs");
    });
    mount(Some("proc"), "/proc", Some("proc"), MsFlags::empty(), NONE).expect("a proc");
}

#[isolated(root = "overlay", unsupported = "skip")]
fn in_a_copy() {
    enter_a_network();
    mount_anew();
}

/// The twin: without those that are kept out of sight, the kernel refuses new ones.
#[isolated]
fn without_a_whole_one_there_is_no_other() {
    for (path, hidden) in [("/sys", "/sys/sys"), ("/proc", "/sys/proc")] {
        while umount2(path, MntFlags::MNT_DETACH).is_ok() {}
        umount2(hidden, MntFlags::MNT_DETACH).expect("the hidden one");
    }
    let mounted = |kind, path| mount(Some(kind), path, Some(kind), MsFlags::empty(), NONE);
    mounted("proc", "/proc").expect_err("there is none that is whole");
    mounted("sysfs", "/sys").expect_err("there is none that is whole");
}

/// What util-linux has.
fn namespaces_within() {
    succeeds("unshare --mount-proc -fp test -e /proc/self/comm");
    succeeds("unshare --mount --pid --fork sh -c 'umount -l /proc; mount -t proc proc /proc && test -e /proc/1/comm'");
    succeeds("unshare --net --mount sh -c 'umount -l /sys; mount -t sysfs sysfs /sys && test -e /sys/class/net/lo'");
    succeeds("unshare --user --map-root-user --mount-proc -fp true");
}

#[isolated]
fn programs_make_namespaces_within() {
    namespaces_within();
}

#[isolated(net)]
fn programs_make_namespaces_within_in_the_hosts_tree() {
    namespaces_within();
}
