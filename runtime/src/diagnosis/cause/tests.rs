//! What each cause says.

use std::path::Path;

use insta::assert_snapshot;
use nix::errno::Errno;

use super::places::tests::{around, barriers};
use super::*;
use crate::text::snapshots::{lacking, page, told};

fn in_full(Cause { why, seen, remedy }: Cause) -> String {
    format!("cause:  {why}\nseen:   {seen}\nremedy: {remedy}")
}

#[test]
fn each_cause_has_its_words() {
    let host = &around(Platform::Host);
    let behind_barriers = HostState { barriers: barriers().to_vec(), seccomp: None, ..around(Platform::Docker) };
    let file = Path::new("/sys/fs/cgroup/a/max");
    let told: Vec<(&str, Cause)> = told!(Cause::[
        unknown(host),
        unknown(&behind_barriers),
        locked_by_threads(&["one".to_owned(), "two".to_owned()]),
        valgrind(),
        fakeroot(),
        barrier(&Barrier::Filter(None), host),
        barrier(&barriers()[0], host),
        barrier(&barriers()[1], host),
        barrier(&barriers()[2], host),
        barrier(&barriers()[3], host),
        apparmor_restricts("unconfined", host),
        for_root_only(host),
        too_many_namespaces("user.max_net_namespaces", None, host),
        too_many_namespaces("user.max_net_namespaces", Some(0), host),
        too_many_namespaces("user.max_net_namespaces", Some(20_000), host),
        too_many_namespaces("user.max_net_namespaces", Some(i32::MAX as u64), host),
        no_time_namespaces(),
        chroot("SEEN"),
        user_is_unmapped(""),
        may_not_map_root(host),
        not_real_root(1000, "         0       1000          1\n         1     100000      65536\n"),
        ids_are_missing(65536, "         0       1000          1\n"),
        no_subordinate_ids("ann", "/etc/subuid", 0, 65535),
        no_subordinate_ids("ann", "/etc/subuid", 65536, u32::MAX - 1),
        mapper_gone(),
        no_program("newuidmap"),
        program_refuses("newgidmap", "not\nallowed"),
        bad_choice("/none"),
        choice_of_others("/"),
        cgroup_of_others("SEEN".to_owned()),
        unit_ends("user@1000.service", "kill"),
        cgroups_v1(1000),
        read_only_cgroups(host),
        no_cgroups(),
        no_controllers_in_wsl(),
        swap_is_not_counted(),
        device_is_closed("/dev/fuse", 0o600, "root", "disk"),
        device_is_forbidden("/dev/fuse", host),
        device_is_missing("/dev/fuse", Errno::ENOENT, host),
        no_directory(None),
        no_directory(Some(Errno::ENOENT)),
        no_path(Errno::ENOENT),
        does_not_answer("nfs"),
        no_place(Path::new("/usr/a\n")),
        closed(Path::new("/home/ann"), 0o700, "ann", true),
        closed(Path::new("/home/ann"), 0o700, "ann", false),
        no_device("/dev/null"),
        no_overlay(),
        no_overlay_for_users("5.10.0"),
        can_not_be_copied(""),
        can_not_be_copied("overlay"),
        root_of_initramfs(),
        no_proc(),
        foreign_proc(),
        read_only_proc(),
        no_sysfs(),
        too_many_descriptors(1024),
        file_too_large(4096),
        too_little_memory("RLIMIT_AS", 4096, "ulimit -v"),
        small_stack(4096),
        memory_used_up(file, 4096, host),
        too_many_processes(64, 63),
        too_many_in_cgroup(file, 64, 63, host),
        threaded_cgroup(Path::new("/sys/fs/cgroup/a\n"), "domain threaded", "cpu pids\n"),
        has_threads(),
        no_thread("1G"),
        too_many_keys("1000: 200 200/200 200/200 4000/20000"),
    ]);
    let names: Vec<_> = told.iter().map(|(name, _)| *name).chain(["new"]).collect();
    for source in [include_str!("mod.rs"), include_str!("cgroups.rs"), include_str!("files.rs")] {
        assert_eq!(lacking(source, &names), [""; 0], "these have no snapshot");
    }
    assert_snapshot!(page(told.into_iter().map(|(name, cause)| (name, in_full(cause)))), @r#"
    # unknown
    cause:  unknown
    seen:   Linux 6.1.0, no container was detected, user 1000, Seccomp: 0 in /proc/self/status
    remedy: none known; the step and the error above are what the host said
    # unknown
    cause:  unknown
    seen:   Linux 6.1.0, in Docker, user 1000, Seccomp: 2 in /proc/self/status, and unshare(CLONE_NEWUSER) is refused with EPERM, where the kernel itself says EINVAL, /proc/self/attr/current is `docker-default\n (enforce)`, /proc/self/attr/current is `u:r:container_t:s0`, /proc/self/mountinfo has /proc/acpi /proc/kcore /proc/keys and 1 more
    remedy: none known; the step and the error above are what the host said
    # locked_by_threads
    cause:  a thread that runs before `main` keeps a lock of the standard library, which tests would wait for: that of the environment, of a standard stream, or of the panic hook
    seen:   in each fork of this process, that lock was taken; the threads were `one`, `two`
    remedy: have constructors start no thread that keeps such a lock, or let it begin in `main`
    # valgrind
    cause:  valgrind runs this program, and knows no namespaces
    seen:   LD_PRELOAD or /proc/self/maps has vgpreload_core
    remedy: run isolated tests without valgrind
    # fakeroot
    cause:  fakeroot runs this program, and its library can't reach its daemon from a sandbox
    seen:   FAKEROOTKEY is set, and /proc/self/maps has libfakeroot
    remedy: run the tests without fakeroot: in their sandboxes they are root in any case
    # barrier
    cause:  a seccomp filter refuses this call, as those of containers do
    seen:   Seccomp: 2 in /proc/self/status, and the kernel itself lets root of a namespace do this
    remedy: run the tests without that filter: in a container, --security-opt seccomp=unconfined (docker run, podman run); in a unit of systemd's, without SystemCallFilter and RestrictNamespaces
    # barrier
    cause:  a seccomp filter refuses this call, as those of containers do
    seen:   Seccomp: 2 in /proc/self/status, and unshare(CLONE_NEWUSER) is refused with EPERM, where the kernel itself says EINVAL
    remedy: run the tests without that filter: in a container, --security-opt seccomp=unconfined (docker run, podman run); in a unit of systemd's, without SystemCallFilter and RestrictNamespaces
    # barrier
    cause:  the AppArmor profile docker-default\n forbids this
    seen:   /proc/self/attr/current is `docker-default\n (enforce)`
    remedy: add `userns,`, `mount,`, `umount,` and `pivot_root,` to the profile docker-default\n in /etc/apparmor.d, or run the tests outside it
    # barrier
    cause:  SELinux forbids this to containers
    seen:   /proc/self/attr/current is `u:r:container_t:s0`
    remedy: run the tests as unconfined_t (runcon -t unconfined_t cargo test), or see with `ausearch -m avc` which rule they need
    # barrier
    cause:  parts of /proc or /sys are masked, as in a container, and then the kernel refuses a new one
    seen:   /proc/self/mountinfo has /proc/acpi /proc/kcore /proc/keys and 1 more
    remedy: sudo umount /proc/acpi /proc/kcore /proc/keys /sys/firmware; in a container, --security-opt systempaths=unconfined (docker run) or unmask=ALL (podman run)
    # apparmor_restricts
    cause:  AppArmor takes all rights from user namespaces that ordinary users make, as Ubuntu does since 24.04
    seen:   kernel.apparmor_restrict_unprivileged_userns is 1, and this process is `unconfined` in /proc/self/attr/current
    remedy: sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0
    # for_root_only
    cause:  user namespaces are for root only, as Debian and Arch once had it
    seen:   kernel.unprivileged_userns_clone is 0
    remedy: sudo sysctl -w kernel.unprivileged_userns_clone=1
    # too_many_namespaces
    cause:  there are as many namespaces of this kind as are allowed
    seen:   user.max_net_namespaces can't be read
    remedy: sudo sysctl -w user.max_net_namespaces=10000
    # too_many_namespaces
    cause:  no namespaces of this kind are allowed
    seen:   user.max_net_namespaces is 0
    remedy: sudo sysctl -w user.max_net_namespaces=10000
    # too_many_namespaces
    cause:  there are as many namespaces of this kind as are allowed
    seen:   user.max_net_namespaces is 20000
    remedy: sudo sysctl -w user.max_net_namespaces=40000
    # too_many_namespaces
    cause:  a user namespace around this one has as many namespaces of this kind as it may have, or 32 lie in each other already
    seen:   user.max_net_namespaces is 2147483647
    remedy: run the tests in fewer user namespaces, or, outside of them all, sudo sysctl -w user.max_net_namespaces=100000
    # no_time_namespaces
    cause:  this kernel has no time namespaces
    seen:   there is no /proc/self/ns/time
    remedy: a kernel with CONFIG_TIME_NS, as distributions have it
    # chroot
    cause:  the tests run in a chroot, where the kernel lets nobody make a user namespace
    seen:   SEEN
    remedy: enter the tree with pivot_root, as `bwrap --dev-bind TREE /` or `systemd-nspawn -D TREE` do
    # user_is_unmapped
    cause:  the user or the group that the tests run as has no number in this user namespace
    seen:   /proc/self/uid_map or gid_map lacks it: empty
    remedy: run them as one that has, such as its root: unshare --map-root-user, or docker run --user 0
    # may_not_map_root
    cause:  root lacks CAP_SETFCAP here, without which the kernel lets nobody map root (since Linux 5.12)
    seen:   CapEff in /proc/self/status lacks the bit 31, and the user is 0
    remedy: keep that capability, or run the tests as an ordinary user
    # not_real_root
    cause:  `user = "host"` stands for the machine's own root, and the tests run as an ordinary user or in a user namespace
    seen:   the user is 1000, and /proc/self/uid_map is `0 1000 1, 1 100000 65536`
    remedy: sudo -E cargo test, or leave `user` out: most of what root does can be done without
    # ids_are_missing
    cause:  fewer than 65536 ids are mapped here, even for root, as in a container or a sandbox
    seen:   /proc/self/uid_map is `0 1000 1`
    remedy: run the tests where root has them all, or give the sandbox around them as many (`uids`)
    # no_subordinate_ids
    cause:  65535 subordinate ids are needed, and the user ann has fewer
    seen:   /etc/subuid gives 0 to ann
    remedy: sudo usermod --add-subuids 100000-165534 --add-subgids 100000-165534 ann
    # no_subordinate_ids
    cause:  4294967294 subordinate ids are needed, and the user ann has fewer
    seen:   /etc/subuid gives 65536 to ann
    remedy: lower `uids`: there are not so many ids beside those of the host
    # mapper_gone
    cause:  the process that maps the ids was killed
    seen:   it has ended, and has said nothing
    remedy: run the tests again. If it was not you, look for the out-of-memory killer in the kernel's log (`dmesg`)
    # no_program
    cause:  the program newuidmap is not installed
    seen:   newuidmap is in no directory that PATH names
    remedy: sudo apt-get install uidmap
    # program_refuses
    cause:  newgidmap refuses
    seen:   it says: not\nallowed
    remedy: give this user as many subordinate ids in /etc/subuid and /etc/subgid
    # bad_choice
    cause:  BELLJAR_CGROUP names no cgroup that can be seen here, or one without this controller
    seen:   BELLJAR_CGROUP is `/none`
    remedy: set it to the path of one, as /proc/self/cgroup writes them, or to nothing
    # choice_of_others
    cause:  BELLJAR_CGROUP names a cgroup that others use
    seen:   BELLJAR_CGROUP is `/`
    remedy: set it to one with no processes in it, or to nothing
    # cgroup_of_others
    cause:  this user may not make cgroups where the tests run, or other processes use that cgroup too
    seen:   SEEN
    remedy: systemd-run --user --scope -p Delegate=yes -- cargo test (as root, without --user), or Delegate=yes in the unit of the service that runs them, or give belljar the feature `systemd`, which asks for such a scope
    # unit_ends
    cause:  systemd ends the unit that the tests run in when the kernel kills a process in it because memory is used up
    seen:   the OOMPolicy of user@1000.service is kill
    remedy: systemd-run --user --scope -p Delegate=yes -- cargo test (as root, without --user), or Delegate=yes in the unit of the service that runs them, or give belljar the feature `systemd`, which asks for such a scope
    # cgroups_v1
    cause:  cgroups are of version 1 here, which are for root only
    seen:   there is no /sys/fs/cgroup/cgroup.controllers, and the user is 1000
    remedy: run the tests as root, or boot with systemd.unified_cgroup_hierarchy=1
    # read_only_cgroups
    cause:  the cgroups are mounted read-only, as in a container
    seen:   /proc/self/mountinfo has them as ro
    remedy: sudo mount -o remount,rw /sys/fs/cgroup, or, for a container, docker run --security-opt writable-cgroups=true
    # no_cgroups
    cause:  no cgroups are mounted
    seen:   /proc/self/mountinfo has no cgroup or cgroup2
    remedy: sudo mount -t cgroup2 cgroup2 /sys/fs/cgroup
    # no_controllers_in_wsl
    cause:  WSL gives the controllers to cgroups of version 1
    seen:   /proc/version tells of Microsoft, and no cgroup of version 2 has the controller
    remedy: in %UserProfile%\.wslconfig, below [wsl2]: kernelCommandLine=cgroup_no_v1=all; then wsl --shutdown
    # swap_is_not_counted
    cause:  this kernel does not count swap, so that a test could exceed its limit on memory by swapping
    seen:   the cgroup lacks that file, and /proc/swaps lists a device
    remedy: boot with swapaccount=1, or turn swap off (sudo swapoff --all)
    # device_is_closed
    cause:  this user may not open the device
    seen:   it belongs to root:disk, with the mode 0600
    remedy: sudo chmod 0666 /dev/fuse, or a rule of udev that says so for good
    # device_is_forbidden
    cause:  the devices that a container, or a unit of systemd's, may open are listed, and this one is not among them
    seen:   the device is there, and open(2) says EPERM
    remedy: allow it where the tests run (systemd: -p DeviceAllow=/dev/fuse)
    # device_is_missing
    cause:  there is no such device, or the kernel has nothing to serve it with
    seen:   open(2) says ENOENT (No such file or directory)
    remedy: sudo modprobe fuse
    # no_directory
    cause:  there is no such directory, or this user can't see it
    seen:   it is no directory
    remedy: name one that is there: root = "/dir"
    # no_directory
    cause:  there is no such directory, or this user can't see it
    seen:   stat(2) says ENOENT (No such file or directory)
    remedy: name one that is there: root = "/dir"
    # no_path
    cause:  there is no such path on the host, or this user can't see it
    seen:   stat(2) says ENOENT (No such file or directory)
    remedy: name one that is there: bind = ["/path"]
    # does_not_answer
    cause:  whoever serves the file system there does not answer: a machine that can't be reached, or a process that hangs
    seen:   within a second, nobody answered; the path, or what it leads through, is on nfs
    remedy: make it answer, or unmount it: umount --lazy
    # no_place
    cause:  the place for what is to be shown does not exist, and none can be made in a directory of the host's
    seen:   /usr/a\n is missing in a directory that is shown
    remedy: name another place: bind = ["/path:/mnt/path"]
    # closed
    cause:  root of the sandbox may not enter the directory /home/ann, which belongs to ann
    seen:   the mode of /home/ann is 700
    remedy: run the tests as ann, or write uids = 65536: root has power over the users that a sandbox has
    # closed
    cause:  root of the sandbox may not enter the directory /home/ann, which belongs to ann
    seen:   the mode of /home/ann is 700
    remedy: run the tests as ann or as root, or open the directory: chmod o+x /home/ann
    # no_device
    cause:  the host lacks a device that every program may count on
    seen:   /dev/null can't be opened, or is not there
    remedy: sudo mount -t devtmpfs dev /dev, or bind the machine's /dev there
    # no_overlay
    cause:  this kernel has no overlayfs, or has not loaded it
    seen:   /proc/filesystems does not list overlay
    remedy: sudo modprobe overlay
    # no_overlay_for_users
    cause:  this kernel lets nobody mount overlayfs in a user namespace
    seen:   it is Linux 5.10.0
    remedy: Linux 5.11 or later
    # can_not_be_copied
    cause:  overlayfs can't use this file system: two overlays lie below it already, as in a sandbox in a container, or it ignores the case of letters
    seen:   the directory is on an unknown file system
    remedy: name a directory on another file system: root = "/dir"
    # can_not_be_copied
    cause:  overlayfs can't use this file system: two overlays lie below it already, as in a sandbox in a container, or it ignores the case of letters
    seen:   the directory is on overlay
    remedy: name a directory on another file system: root = "/dir"
    # root_of_initramfs
    cause:  the root is the kernel's first, that of an initramfs, which nothing can take the place of
    seen:   /proc/self/mountinfo has a rootfs at /
    remedy: switch to another root before the tests run: copy the system to a tmpfs, and exec switch_root TMPFS /init
    # no_proc
    cause:  there is no /proc
    seen:   there is no /proc/self/status
    remedy: sudo mount -t proc proc /proc
    # foreign_proc
    cause:  the /proc here is that of a pid namespace in which the tests do not run
    seen:   there is /proc/stat, and no /proc/self/status
    remedy: mount -t proc proc /proc, where the tests run
    # read_only_proc
    cause:  /proc is mounted read-only
    seen:   /proc/self/mountinfo has it as ro
    remedy: sudo mount -o remount,rw /proc, or, in a container, let it have a /proc of its own that is writable
    # no_sysfs
    cause:  there is no sysfs: the kernel makes another only where there is one
    seen:   /proc/self/mountinfo has none
    remedy: sudo mount -t sysfs sysfs /sys
    # too_many_descriptors
    cause:  a process may not have so many files open
    seen:   RLIMIT_NOFILE is 1024
    remedy: raise the limit on open files (`ulimit -n`), or run fewer tests at once (`--test-threads`)
    # file_too_large
    cause:  files may not become so large
    seen:   RLIMIT_FSIZE is 4096
    remedy: ulimit -f unlimited
    # too_little_memory
    cause:  a process may not have so much memory
    seen:   RLIMIT_AS is 4096
    remedy: ulimit -v unlimited, or run fewer tests at once (`--test-threads`)
    # small_stack
    cause:  a process may not have so large a stack
    seen:   RLIMIT_STACK is 4096
    remedy: ulimit -s 8192
    # memory_used_up
    cause:  the cgroup that the tests run in has used up its memory, and the kernel then kills processes in it, or refuses them more
    seen:   /sys/fs/cgroup/a/max is 4096, and was reached
    remedy: raise it (systemd: systemctl set-property UNIT MemoryMax=4G), or run fewer tests at once (`--test-threads`)
    # too_many_processes
    cause:  this user has as many processes and threads as it may have
    seen:   RLIMIT_NPROC is 64, and /proc shows 63 processes and threads of this user now
    remedy: ulimit -u unlimited (or raise `nproc` in /etc/security/limits.conf)
    # too_many_in_cgroup
    cause:  the cgroup that the tests run in has as many processes and threads as it may have
    seen:   /sys/fs/cgroup/a/max is 64, and pids.current was 63
    remedy: raise it (systemd: systemctl set-property UNIT TasksMax=infinity), run fewer tests at once (`--test-threads`), or write `pids = ..` on a test that starts many processes
    # threaded_cgroup
    cause:  the cgroup that the tests run in is threaded: it has processes, and gives controllers to the cgroups below it. There, the kernel limits threads only
    seen:   cgroup.type of /sys/fs/cgroup/a\n is domain threaded
    remedy: echo '-cpu -pids' | sudo tee /sys/fs/cgroup/a\n/cgroup.subtree_control, or run the tests in another cgroup
    # has_threads
    cause:  the test's process has a second thread before its body begins, as with ThreadSanitizer, so that it can't enter a user namespace
    seen:   EINVAL, which unshare(2) has for such processes
    remedy: write uids = 65536 beside user: users that are there already take no namespace of their own
    # no_thread
    cause:  the thread is to have a larger stack than there is memory for, or there are as many threads as there may be
    seen:   RUST_MIN_STACK is 1G
    remedy: lower RUST_MIN_STACK, or raise the limit on processes and threads (`ulimit -u`)
    # too_many_keys
    cause:  this user has as many keys as it may have (`keyctl show` lists some)
    seen:   /proc/key-users has `1000: 200 200/200 200/200 4000/20000`
    remedy: sudo sysctl -w kernel.keys.maxkeys=2000 kernel.keys.maxbytes=200000
    "#);
}
