//! The small system in a root of its own: `/etc`, `/dev`, `/proc`, `/sys`, `/run`.

use std::ffi::{CStr, OsStr};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::{fs, io};

use nix::mount::MsFlags;
use nix::sys::stat::Mode;

use super::builder::{Builder, read_only};
use crate::collect::map_both;
use crate::rootfs::build::{Access, Operation};
use crate::rootfs::context::as_field;
use crate::rootfs::stage::Stage;
use crate::rootfs::sysctl::{MACHINE, OWN};
use crate::spec::{DEFAULT_HOSTNAME, Ids, Spec};

/// Directories of the operating system. `/usr` first: the others are links into it nearly everywhere.
pub(super) const SYSTEM: [&str; 11] =
    ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/libexec", "/opt", "/nix/store", "/gnu/store"];

/// What programs look up in `/etc`, and tests rarely change.
pub(super) const ETC: [&str; 14] = [
    "alternatives",
    "ethertypes",
    "iproute2",
    "ld.so.cache",
    "localtime",
    "login.defs",
    "os-release",
    "pam.d",
    "pki",
    "protocols",
    "services",
    "shells",
    "ssl",
    "timezone",
];

/// Where the host's `/etc` is in a sandbox's. Links lead there, by relative paths, so that they do so in a copy of `/etc`, too. A mount for
/// each of them would take ten times as long as a link.
pub(super) const ETC_OF_HOST: &str = ".host";

pub(super) const LINKS: [(&str, &str); 7] = [
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "/proc/self/fd/1"),
    ("/dev/stderr", "/proc/self/fd/2"),
    ("/dev/ptmx", "pts/ptmx"),
    ("/etc/mtab", "/proc/self/mounts"),
    ("/var/run", "/run"),
];

pub(super) const DEVICES: [&str; 6] =
    ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty"];

/// Devices that not every host has. Whether this user may open them is for the host to say.
pub(super) const OPTIONAL_DEVICES: [&str; 2] = ["/dev/fuse", "/dev/net/tun"];

/// Parts of `/proc` by which root changes the machine, besides the settings.
pub(super) const KERNEL_FILES: [&str; 7] = ["acpi", "bus", "fs", "irq", "mtrr", "scsi", "sysrq-trigger"];

/// Where the host's `/run` is in one of the sandbox's own.
pub(super) const RUN_HOST: &str = "host";

/// What belongs to a network in `/run`, so that the host's is not shown: the namespaces of ip-netns(8), and the lock of iptables(8).
pub(super) const OWN_IN_RUN: [&CStr; 2] = [c"netns", c"xtables.lock"];

pub(super) const NSSWITCH: &str = "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\nnetworks: files\n\
                        protocols: files\nservices: files\n";

impl Builder<'_> {
    /// The files of `/etc` that say what a test asks for.
    fn files_of(&self, spec: &Spec) -> Vec<(&'static str, Vec<u8>)> {
        let hostname = spec.hostname.unwrap_or(DEFAULT_HOSTNAME);
        let home = self.host.context.home(spec);
        let home = as_field(&home).unwrap_or(OsStr::new("/root")).as_bytes();
        let passwd: [&[u8]; 3] =
            [b"root:x:0:0:root:", home, b":/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"];
        // Root and nobody have names already.
        let own = |id: &u32| *id != 0 && *id != 65534;
        let user = spec
            .user
            .filter(|(uid, _)| own(uid))
            .map(|(uid, gid)| [format!("user:x:{uid}:{gid}:user:").as_bytes(), home, b":/bin/sh\n"].concat());
        let group = spec.user.map(|(_, gid)| gid).filter(own).map_or(String::new(), |gid| format!("user:x:{gid}:\n"));
        let alias = if hostname == DEFAULT_HOSTNAME { String::new() } else { format!(" {hostname}") };
        let hosts = format!("127.0.0.1\tlocalhost{alias}\n::1\tlocalhost ip6-localhost ip6-loopback\n");
        // Without a network there is no name server; glibc would look for one on the loopback and be told so at once.
        let resolv = if spec.net { Vec::new() } else { self.host.context.resolv_conf.clone() };
        vec![
            ("/etc/passwd", [passwd.concat(), user.unwrap_or_default()].concat()),
            ("/etc/group", format!("root:x:0:\nnogroup:x:65534:\n{group}").into_bytes()),
            ("/etc/hostname", format!("{hostname}\n").into_bytes()),
            ("/etc/hosts", hosts.into_bytes()),
            ("/etc/resolv.conf", resolv),
        ]
    }

    /// Has what a preparation has left in these files say what the test asks for, where the preparation has left it as it was.
    pub(super) fn etc_of_test(&mut self, preparation: &Spec, spec: &Spec) {
        for ((path, was), (_, content)) in self.files_of(preparation).into_iter().zip(self.files_of(spec)) {
            // A test that asks for no user has the names that the preparation had.
            let is_asked = spec.user.is_some() || !["/etc/passwd", "/etc/group"].contains(&path);
            let path = Path::new(path);
            if is_asked && was != content && self.base.as_ref().is_some_and(|base| base.holds(path, &was)) {
                self.operations.push(Operation::Rewrite { path: self.inside(path), content });
            }
        }
    }

    /// Fills `/etc`.
    pub(super) fn etc(&mut self, spec: &Spec) {
        for (path, content) in self.files_of(spec) {
            self.file(path, content);
        }
        self.file("/etc/nsswitch.conf", NSSWITCH.into());
        // All addresses of a name, so that `localhost` is both.
        self.file("/etc/host.conf", b"multi on\n".into());
        self.operations.push(Operation::MachineId { path: self.inside(Path::new("/etc/machine-id")) });
        let is_link = fs::read_link("/etc").is_ok();
        for name in ETC {
            if let Some(target) = in_etc(name, is_link) {
                self.symlink(&Path::new("/etc").join(name), &target);
            }
        }
    }

    /// Shows the host's `/etc`, where links in the sandbox's lead to.
    pub(super) fn etc_of_host(&mut self) {
        let of_host = Path::new("/etc").join(ETC_OF_HOST);
        self.directory(&of_host, 0o755);
        self.bind(Path::new("/etc"), &of_host);
        self.shown.insert(of_host);
    }

    /// Fills `/dev`. Device nodes can't be made in a user namespace, so they are the host's.
    pub(super) fn devices(&mut self, spec: &Spec) {
        for path in DEVICES {
            self.device(Path::new(path), false);
        }
        let of_root = if spec.ids == Ids::Host { &["/dev/loop-control"][..] } else { &[] };
        for path in OPTIONAL_DEVICES.iter().chain(of_root) {
            if Path::new(path).exists() {
                self.device(Path::new(path), true);
            }
        }
        for path in ["/dev/pts", "/dev/mqueue"] {
            self.directory(Path::new(path), 0o755);
        }
        self.operations.push(Operation::Mount {
            kind: c"devpts",
            path: self.inside(Path::new("/dev/pts")),
            flags: MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC,
            options: Some(c"newinstance,ptmxmode=0666,mode=0620".to_owned()),
            kept: None,
        });
        self.mount(c"mqueue", Path::new("/dev/mqueue"));
    }

    /// Shows a device. If it is optional, a module of the kernel may be removed later, and the device with it.
    fn device(&mut self, path: &Path, is_optional: bool) {
        self.directory(path.parent().unwrap_or(Path::new("/")), 0o755);
        self.operations.push(Operation::Node { path: self.inside(path) });
        self.present.insert(path.into());
        // Read-only, or whoever owns the node could change its mode, on the host. What is written to a device goes there all the same.
        if is_optional {
            self.bind_if_there(path, path);
        } else {
            self.bind(path, path);
        }
    }

    /// Mounts `/proc` and `/sys`.
    ///
    /// The kernel lets nobody mount a new one but where it finds one that nothing covers in part. So there is a whole one of each under
    /// what comes to lie on `/sys`. Whoever unmounts `/proc` or `/sys` can mount it anew, and so can a sandbox within this one.
    pub(super) fn kernel_file_systems(&mut self, net: bool) {
        let [proc, whole_proc] = map_both(["/proc", "/sys/proc"], Path::new);
        let [sys, whole_sys] = map_both(["/sys", "/sys/sys"], Path::new);
        self.directory(whole_proc, 0o555);
        self.mount(c"proc", whole_proc);
        self.bind_inside(whole_proc, proc, Access::AsIs);
        let Some(stage) = self.host.stage else { return };
        if self.host.context.owns_kernel_files {
            self.shield_proc(stage, proc, whole_proc);
        }
        self.directory(whole_sys, 0o555);
        if net {
            self.mount(c"sysfs", whole_sys);
            self.bind_inside(whole_sys, sys, Access::AsIs);
            if self.host.context.owns_kernel_files {
                self.shield_sys();
            }
        } else {
            // A sysfs belongs to a network: with the host's, there is only the host's.
            self.bind(sys, whole_sys);
            self.bind(&stage.sysfs(), sys);
        }
        if net {
            self.let_ping();
        }
        // Only the kernel makes what is there.
        self.shown.extend(map_both([proc, sys], Path::to_path_buf));
    }

    /// Keeps real root from changing the machine through `proc` by accident. The one that is `whole` stays as it is.
    ///
    /// The kernel's files belong to root, and are writable for their owner, in whatever user namespace that is. An
    /// ordinary user can't write to them, nor can root here: all are read-only but the settings of the sandbox's own
    /// namespaces.
    pub(super) fn shield_proc(&mut self, stage: &Stage, proc: &Path, whole: &Path) {
        for name in KERNEL_FILES {
            self.bind_to_itself(&proc.join(name), &stage.host_proc().join(name), read_only());
        }
        let (sys, settings) = (proc.join("sys"), stage.proc_sys());
        self.bind(&settings, &sys);
        for (part, access) in [(OWN, Access::AsIs), (MACHINE, read_only())] {
            self.bind_inside(&whole.join("sys"), &sys.join(part), access);
        }
    }

    /// The same for `/sys`, of which interfaces are the sandbox's own. What lies there must not be the one that is to stay whole: the caller has
    /// mounted another over that.
    pub(super) fn shield_sys(&mut self) {
        let [sys, interfaces] = map_both(["/sys", "/sys/devices/virtual/net"], Path::new);
        // It becomes a mount of its own before, and stays as it is.
        self.bind_to_itself(interfaces, interfaces, Access::AsIs);
        self.operations.push(Operation::ReadOnly { path: self.inside(sys) });
    }

    /// Gives a sandbox with the host's tree and a network of its own a `/run` of its own, where programs put what belongs to a network:
    /// `ip netns` and iptables, for example. What the host has there is shown by links, so that its sockets can be used.
    pub(super) fn run(&mut self, stage: &Stage, net: bool) {
        let (run, new) = (Path::new("/run"), stage.new_root());
        if !net || !run.is_dir() {
            return;
        }
        let path = self.inside(&new);
        let options = Some(c"mode=755".to_owned());
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
        self.operations.push(Operation::Mount { kind: c"tmpfs", path: path.clone(), flags, options, kept: None });
        for (name, mode) in [(RUN_HOST, 0o755), ("lock", 0o1777)] {
            let path = self.inside(&new.join(name));
            self.operations.push(Operation::Directory { path, mode: Mode::from_bits_truncate(mode) });
        }
        self.bind(run, &new.join(RUN_HOST));
        let from = self.inside(&new.join(RUN_HOST));
        self.operations.push(Operation::Links { from, to: path, prefix: b"host/", but: &OWN_IN_RUN });
        self.move_to(&new, run);
    }

    /// Lets all groups make ICMP sockets, see icmp(7). In a new network, nobody may.
    pub(super) fn let_ping(&mut self) {
        let last = match self.ids {
            Ids::Range(count) => count - 1,
            Ids::One | Ids::Host => 0,
        };
        let path = self.inside(Path::new("/proc/sys/net/ipv4/ping_group_range"));
        self.operations.push(Operation::Setting { path, value: format!("0 {last}").into_bytes() });
    }

    /// Makes a mount of its own of a path that is there already, if the host has something `on_host`.
    pub(super) fn bind_to_itself(&mut self, path: &Path, on_host: &Path, access: Access) {
        if on_host.exists() {
            self.bind_inside(path, path, access);
        }
    }
}

/// What a link in `/etc` of this name is to hold, so that it leads to what the host has there; nothing if the host has nothing. `is_link`: the
/// host's `/etc` is a link itself.
pub(super) fn in_etc(name: &str, is_link: bool) -> Option<PathBuf> {
    let path = Path::new("/etc").join(name);
    let target = fs::read_link(&path);
    if !is_link && target.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::InvalidInput) {
        // It is there, and no link.
        return Some(Path::new(ETC_OF_HOST).join(name));
    }
    let canonical = path.canonicalize().ok()?;
    match (target, canonical.strip_prefix("/etc")) {
        // What lies elsewhere is shown in its place. Programs look at what the link of `localtime` holds.
        (Ok(target), Err(_)) => Some(target),
        (_, Ok(below)) => Some(Path::new(ETC_OF_HOST).join(below)),
        (Err(_), Err(_)) => Some(canonical),
    }
}
