//! Plans the file system of a sandbox: from what a test asks for and what the host has, to a list of operations.
//!
//! With a root of its own, the sandbox has three kinds of directories:
//! - the host's, read-only and at their own paths: the operating system, the workspace, the target directory, the
//!   toolchain, and what `PATH` and `LD_LIBRARY_PATH` name;
//! - private and writable ones, empty at first: `/tmp`, `/run`, `/var`, `$HOME` and all else in the tmpfs;
//! - what the kernel makes: `/proc`, `/sys`, `/dev/pts`, `/dev/mqueue`.

mod answers;
mod basis;
mod copy;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{CStr, CString, OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::mount::MsFlags;
use nix::sys::stat::Mode;

pub(crate) use self::answers::{Answers, Known};
use self::basis::Basis;
use self::copy::copied_root;
use super::facts::{Facts, as_field, repository_of, workspace_of};
use super::stage::Stage;
use super::sysctl::{MACHINE, OWN};
use crate::frame::Step;
use crate::frame::refusal::Failure;
use crate::proc::Mount;
use crate::rootfs::build::{Access, KERNEL_FLAGS, Operation, Plan};
use crate::spec::{Bind, DEFAULT_HOSTNAME, Ids, Root, Spec};

/// Directories of the operating system. `/usr` first: the others are links into it nearly everywhere.
const SYSTEM: [&str; 11] =
    ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/libexec", "/opt", "/nix/store", "/gnu/store"];

/// What programs look up in `/etc`, and tests rarely change.
const ETC: [&str; 14] = [
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
const ETC_OF_HOST: &str = ".host";

/// Directories that every root has, besides those of the system. Each costs five microseconds a test.
const PRIVATE: [(&str, u32); 13] = [
    ("/dev", 0o755),
    ("/dev/shm", 0o1777),
    ("/etc", 0o755),
    ("/mnt", 0o755),
    ("/proc", 0o555),
    ("/run", 0o755),
    ("/sys", 0o555),
    ("/tmp", 0o1777),
    ("/var", 0o755),
    ("/var/cache", 0o755),
    ("/var/lib", 0o755),
    ("/var/log", 0o755),
    ("/var/tmp", 0o1777),
];

const LINKS: [(&str, &str); 7] = [
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "/proc/self/fd/1"),
    ("/dev/stderr", "/proc/self/fd/2"),
    ("/dev/ptmx", "pts/ptmx"),
    ("/etc/mtab", "/proc/self/mounts"),
    ("/var/run", "/run"),
];

const DEVICES: [&str; 6] = ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty"];

/// Devices that not every host has. Whether this user may open them is for the host to say.
const OPTIONAL_DEVICES: [&str; 2] = ["/dev/fuse", "/dev/net/tun"];

/// Parts of `/proc` by which root changes the machine, besides the settings.
const KERNEL_FILES: [&str; 7] = ["acpi", "bus", "fs", "irq", "mtrr", "scsi", "sysrq-trigger"];

/// Where the host's `/run` is in one of the sandbox's own.
const RUN_HOST: &str = "host";

/// What belongs to a network in `/run`, so that the host's is not shown: the namespaces of ip-netns(8), and the lock of iptables(8).
const OWN_IN_RUN: [&CStr; 2] = [c"netns", c"xtables.lock"];

const NSSWITCH: &str = "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\nnetworks: files\n\
                        protocols: files\nservices: files\n";

/// How many links a path leads through before it is taken for a loop; the kernel's number.
const LINKS_MAX: usize = 40;

/// The host, as the template sees it, which is root of the user namespace that it is in.
pub(crate) struct Host<'t> {
    pub(crate) facts: &'t Facts,
    /// All that is mounted.
    pub(crate) mounts: &'t [Mount],
    pub(crate) answers: Answers<'t>,
    /// What it has besides.
    pub(crate) stage: Option<&'t Stage>,
}

impl Host<'_> {
    /// The mount points below `path`.
    fn mounts_below(&self, path: &Path) -> impl Iterator<Item = &Path> {
        let points = self.mounts.iter().map(|mount| mount.point.as_path());
        points.filter(move |point| point.starts_with(path) && *point != path)
    }

    /// What is tested and closed to the template, to be shown all the same.
    fn closed(&self) -> impl Iterator<Item = Wanted> {
        let wanted = |path: &Path| Wanted { canonical: path.into(), kind: Kind::Shown, name: path.into() };
        self.stage.into_iter().flat_map(Stage::closed).map(wanted)
    }

    /// What is tested and closed, and not in the stage either.
    fn closed_to_all(&self, spec: &Spec) -> Option<PathBuf> {
        let answers = &self.answers;
        let is_opened = |path: &Path| self.stage.is_some_and(|stage| stage.closed().any(|open| path.starts_with(open)));
        let is_closed = |path: &PathBuf| {
            let error = fs::metadata(path).err().map(|error| error.kind());
            error == Some(io::ErrorKind::PermissionDenied) && !is_opened(&answers.canonical(path))
        };
        tested(answers, self.facts, spec).into_iter().find(is_closed)
    }

    /// Whether the host has a directory there.
    fn has_directory(&self, path: &Path) -> bool {
        self.answers.is_directory(path) || self.stage.is_some_and(|stage| stage.has_closed_directory(path))
    }

    fn is_mount_point(&self, path: &Path) -> bool {
        self.mounted_at(path).is_some()
    }

    /// What lies on top of what is mounted there.
    fn mounted_at(&self, path: &Path) -> Option<&Mount> {
        self.mounts.iter().rfind(|mount| mount.point == path)
    }
}

/// A plan, and what it holds for.
pub(crate) struct Planned {
    pub(crate) plan: Plan,
    pub(crate) basis: Basis,
}

/// Plans the file system of the sandbox that `spec` asks for. Fails if root of the sandbox may not reach what is tested, or if nobody answers
/// where something lies that the test names.
pub(crate) fn plan(host: &Host<'_>, spec: &Spec) -> Result<Planned, Failure> {
    if let Some(closed) = host.closed_to_all(spec).filter(|_| spec.mount) {
        return Err(Failure::new(Step::Bind, closed, Errno::EACCES));
    }
    let mut named = spec.binds.iter().map(|bind| host.facts.absolute(spec, bind.from));
    if let Some(silent) = named.find(|path| !host.answers.follow(path)) {
        return Err(Failure::new(Step::Bind, silent, Errno::ETIMEDOUT));
    }
    match spec.root {
        _ if !spec.mount => Ok(hosts_root(host, spec)),
        Root::Tmpfs => Ok(own_root(host, spec)),
        Root::Overlay => copied_root(host, spec, Path::new("/")),
        Root::Directory(path) => copied_root(host, spec, &host.answers.canonical(&host.facts.absolute(spec, path))),
    }
}

/// The host's tree, with a `/proc` and a `/sys` that fit the sandbox's namespaces.
fn hosts_root(host: &Host<'_>, spec: &Spec) -> Planned {
    let mut builder = Builder::new(host, spec, "/");
    match host.stage {
        Some(stage) if host.facts.owns_kernel_files => {
            let [new, whole] = stage.procs();
            builder.mount(c"proc", &whole);
            builder.bind(&whole, &new);
            builder.shield_proc(stage, &new, &whole);
            builder.run(stage, spec.net);
            builder.move_to(&new, Path::new("/proc"));
        }
        Some(stage) => {
            builder.run(stage, spec.net);
            builder.mount(c"proc", Path::new("/proc"));
        }
        None => builder.mount(c"proc", Path::new("/proc")),
    }
    // Interfaces show in a sysfs of their own network only. The cgroups that are mounted in the host's stay.
    let cgroups = Some(Path::new("/sys/fs/cgroup")).filter(|path| spec.net && host.is_mount_point(path));
    if spec.net {
        builder.mount_keeping(c"sysfs", Path::new("/sys"), cgroups);
    }
    if Path::new("/dev/mqueue").is_dir() {
        builder.mount(c"mqueue", Path::new("/dev/mqueue"));
    }
    if spec.net {
        builder.let_ping();
    }
    if host.facts.owns_kernel_files && spec.net {
        builder.shield_sys();
        if let Some(path) = cgroups {
            let below = host.mounts_below(path).map(|mount| builder.inside(mount)).collect();
            builder.bind_to_itself(path, path, Access::ReadOnly { below });
        }
    }
    builder.binds(spec);
    let plan = Plan { root: None, is_copy: false, operations: builder.operations, working_directory: None };
    Planned { plan, basis: builder.basis }
}

/// A tmpfs with what tests and host tools need.
fn own_root(host: &Host<'_>, spec: &Spec) -> Planned {
    let (facts, answers) = (host.facts, &host.answers);
    let mut builder = Builder::new(host, spec, "");
    for path in SYSTEM {
        builder.system_directory(Path::new(path));
    }
    for (path, mode) in PRIVATE {
        builder.directory(Path::new(path), mode);
    }
    builder.links(LINKS);
    builder.etc(spec);
    builder.devices(spec);
    builder.kernel_file_systems(spec.net);
    let shown = shown(answers, facts, spec).into_iter().chain(host.closed());
    builder.wanted(shown.chain(profiles(answers, facts)).chain(writable(answers, facts, spec)).collect());
    builder.finish(spec, false)
}

/// A directory that a sandbox is to have.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Wanted {
    /// Its path on the host, with no links in it.
    canonical: PathBuf,
    kind: Kind,
    /// The path by which it is known.
    name: PathBuf,
}

/// Where both are wanted, it is the host's.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    /// The host's, read-only.
    Shown,
    /// The host's, for coverage profiles: writable, but for the directories in it.
    Profiles,
    /// Private, with this mode.
    Writable(u32),
}

/// The private directories that the environment names.
fn writable(answers: &Answers<'_>, facts: &Facts, spec: &Spec) -> Vec<Wanted> {
    let target_tmpdir = spec.target_tmpdir.map(|path| (PathBuf::from(path), 0o755));
    let wanted = facts.writable(spec).chain(target_tmpdir);
    let wanted = wanted.map(|(name, mode)| (answers.canonical(&name), Kind::Writable(mode), name));
    wanted.map(|(canonical, kind, name)| Wanted { canonical, kind, name }).collect()
}

/// Where coverage profiles go.
fn profiles(answers: &Answers<'_>, facts: &Facts) -> Option<Wanted> {
    let name = facts.profiles.clone().filter(|path| answers.follow(path))?;
    let canonical = answers.canonical(&name);
    leaves_root_private(&canonical).then_some(Wanted { canonical, kind: Kind::Profiles, name })
}

/// The host's directories that are shown.
fn shown(answers: &Answers<'_>, facts: &Facts, spec: &Spec) -> Vec<Wanted> {
    let home = answers.canonical(&facts.home(spec));
    let leaves_home_private = |path: &Path| leaves_root_private(path) && !home.starts_with(path);
    // What is tested is shown even if it is, or holds, the home directory.
    let mut paths = tested(answers, facts, spec);
    let others = facts.toolchain.iter().chain(&facts.cwd).chain(&facts.tools);
    paths.extend(others.filter(|path| leaves_home_private(&answers.canonical(path))).cloned());
    // Programs come with libraries beside them, in the directory above.
    let tools = facts.tools.iter().filter(|tools| answers.follow(tools)).map(|tools| answers.canonical(tools));
    let prefixes = tools.filter_map(|tools| tools.parent().map(Path::to_path_buf));
    paths.extend(prefixes.filter(|prefix| leaves_home_private(prefix) && is_prefix(&home, prefix)));
    as_wanted(answers, paths)
}

/// The repository, the workspace, the package and the target directory.
pub(crate) fn tested(answers: &Answers<'_>, facts: &Facts, spec: &Spec) -> Vec<PathBuf> {
    let Some(package) = facts.package(spec).filter(|package| answers.follow(package)) else { return Vec::new() };
    let home = answers.canonical(&facts.home(spec));
    let repository = repository_of(package, &home);
    let tested = repository.into_iter().chain([workspace_of(package), package]).chain(facts.target.as_deref());
    tested.filter(|path| leaves_root_private(&answers.canonical(path))).map(Path::to_path_buf).collect()
}

/// Those of these paths that are directories of the host, to be shown.
fn as_wanted(answers: &Answers<'_>, paths: Vec<PathBuf>) -> Vec<Wanted> {
    let wanted = |name: PathBuf| Wanted { canonical: answers.canonical(&name), kind: Kind::Shown, name };
    paths.into_iter().map(wanted).filter(|wanted| answers.is_directory(&wanted.canonical)).collect()
}

/// Whether the private directories stay private if `path` is shown.
fn leaves_root_private(path: &Path) -> bool {
    PRIVATE.iter().all(|(private, _)| !Path::new(private).starts_with(path))
}

/// Whether a directory above one of programs belongs to just these, like `/opt/tool` above `/opt/tool/bin`, and is no
/// place where others keep their data too, like `~/.local`.
fn is_prefix(home: &Path, path: &Path) -> bool {
    path.components().count() > 2 && *path != home.join(".local")
}

/// Collects operations, and knows what the tree looks like after them.
struct Builder<'f> {
    host: &'f Host<'f>,
    /// What the paths of the sandbox begin with, in place of `/`: see [`build`](super::build).
    prefix: &'static str,
    /// The options of each tmpfs.
    tmpfs: CString,
    /// Which users and groups there are inside.
    ids: Ids,
    operations: Vec<Operation>,
    /// Directories, files and links that are there.
    present: BTreeSet<PathBuf>,
    /// The links among them, and what they hold.
    links: BTreeMap<PathBuf, PathBuf>,
    /// Paths of the host that are shown.
    shown: BTreeSet<PathBuf>,
    /// Private directories in what is shown, or in the tree that is copied.
    covered: BTreeSet<PathBuf>,
    /// The root of the tree that has been copied, on the host.
    base: Option<PathBuf>,
    /// How many layers the copy has.
    layers: usize,
    /// Directories that root inside is to own in the copy, besides those that it has in every system.
    owned: Vec<PathBuf>,
    basis: Basis,
}

impl<'f> Builder<'f> {
    fn new(host: &'f Host<'f>, spec: &Spec, prefix: &'static str) -> Self {
        let size = spec.tmpfs.map_or(String::new(), |bytes| format!(",size={bytes}"));
        let tmpfs = c_string(format!("mode=755{size}").as_ref());
        let present = BTreeSet::from([PathBuf::from("/")]);
        let (links, shown, covered) = (BTreeMap::new(), BTreeSet::new(), BTreeSet::new());
        let (operations, base, layers, owned) = (Vec::new(), None, 0, Vec::new());
        let (ids, basis) = (spec.ids, Basis::default());
        Self { host, prefix, tmpfs, ids, operations, present, links, shown, covered, base, layers, owned, basis }
    }

    /// `path` as operations name it, which are about the sandbox.
    fn inside(&self, path: &Path) -> CString {
        let relative = path.strip_prefix("/").unwrap_or(path);
        c_string(Path::new(self.prefix).join(relative).as_os_str())
    }

    /// Whether `path` lies in a directory of the host that is shown, or is one.
    fn is_shown(&self, path: &Path) -> bool {
        let covered_or_shown = |path: &&Path| self.covered.contains(*path) || self.shown.contains(*path);
        path.ancestors().find(covered_or_shown).is_some_and(|path| !self.covered.contains(path))
    }

    /// Where `path` leads in the sandbox, with no links and no `..` left in it. The links of the host that it leads through
    /// are made, so that it is known by the same names.
    ///
    /// Operations need such paths: until the new root is the root, an absolute link leads to the host's tree.
    fn physical(&mut self, path: &Path) -> PathBuf {
        let mut physical = PathBuf::from("/");
        let mut rest: Vec<OsString> = names_reversed(path);
        let mut links = 0;
        while let Some(name) = rest.pop() {
            if name == ".." {
                // By its name it is to be reached through this one.
                self.directory(&physical, 0o755);
                physical.pop();
                continue;
            }
            physical.push(name);
            let known = self.links.get(&physical).cloned();
            let of_host = || {
                let original = if self.base.is_some() { self.original(&physical)? } else { physical.clone() };
                if self.present.contains(&physical) || !self.host.answers.at(&original) {
                    return None;
                }
                fs::read_link(original).ok()
            };
            let Some(target) = known.or_else(of_host).filter(|_| links < LINKS_MAX) else { continue };
            links += 1;
            self.symlink(&physical, &target);
            physical.pop();
            if target.is_absolute() {
                physical = PathBuf::from("/");
            }
            rest.extend(names_reversed(&target));
        }
        physical
    }

    /// Makes a directory and those above it, unless they are there.
    fn directory(&mut self, path: &Path, mode: u32) {
        if self.is_there(path) {
            return;
        }
        if let Some(parent) = path.parent() {
            self.directory(parent, 0o755);
        }
        let mode = Mode::from_bits_truncate(mode);
        self.operations.push(Operation::Directory { path: self.inside(path), mode });
        self.present.insert(path.to_path_buf());
    }

    /// Makes a link, unless it is there.
    fn symlink(&mut self, path: &Path, target: &Path) {
        if self.is_there(path) {
            return;
        }
        if let Some(parent) = path.parent() {
            self.directory(parent, 0o755);
        }
        let (link, content) = (self.inside(path), c_string(target.as_os_str()));
        self.operations.push(Operation::Symlink { path: link, target: content });
        self.present.insert(path.to_path_buf());
        self.links.insert(path.to_path_buf(), target.to_path_buf());
    }

    fn links(&mut self, links: impl IntoIterator<Item = (&'static str, &'static str)>) {
        for (path, target) in links {
            self.symlink(Path::new(path), Path::new(target));
        }
    }

    fn file(&mut self, path: &str, content: Vec<u8>) {
        self.file_with(Path::new(path), content, 0o644);
    }

    fn file_with(&mut self, path: &Path, content: Vec<u8>, mode: u32) {
        let mode = Mode::from_bits_truncate(mode);
        self.operations.push(Operation::File { path: self.inside(path), content, mode });
        self.present.insert(path.to_path_buf());
    }

    /// What is copied to `path`, if anything is.
    fn original(&self, path: &Path) -> Option<PathBuf> {
        let original = self.base.as_ref()?.join(path.strip_prefix("/").unwrap_or(path));
        let is_covered = path.ancestors().any(|path| self.covered.contains(path));
        let is_there = || self.host.answers.at(&original) && fs::symlink_metadata(&original).is_ok();
        (!is_covered && is_there()).then_some(original)
    }

    /// Makes what is wanted, the outermost first: what is shown may lie in what is private, and the other way round.
    fn wanted(&mut self, mut wanted: Vec<Wanted>) {
        wanted.sort();
        for Wanted { name, kind, .. } in wanted {
            let path = self.physical(&name);
            match kind {
                Kind::Shown => self.show(&path),
                Kind::Profiles => self.profiles(&path),
                Kind::Writable(mode) => self.writable(&path, mode),
            }
        }
    }

    /// Shows what the test asks for by name, and goes where it begins.
    fn finish(mut self, spec: &Spec, is_copy: bool) -> Planned {
        self.binds(spec);
        let working_directory = self.host.facts.cwd.clone().unwrap_or_else(|| PathBuf::from("/"));
        self.directory(&working_directory, 0o755);
        let working_directory = Some(c_string(working_directory.as_os_str()));
        let plan = Plan { root: Some(self.tmpfs), is_copy, operations: self.operations, working_directory };
        Planned { plan, basis: self.basis }
    }

    /// Mounts a file system of the kernel's: no devices, no programs.
    fn mount(&mut self, kind: &'static CStr, path: &Path) {
        self.mount_keeping(kind, path, None);
    }

    /// Mounts a file system of the kernel's, and puts back what is mounted at `kept`, which lies below it.
    fn mount_keeping(&mut self, kind: &'static CStr, path: &Path, kept: Option<&Path>) {
        let kept = kept.map(|path| self.inside(path));
        let path = self.inside(path);
        self.operations.push(Operation::Mount { kind, path, flags: KERNEL_FLAGS, options: None, kept });
    }

    /// Shows what the sandbox has at `from` at `to`, too.
    fn bind_inside(&mut self, from: &Path, to: &Path, access: Access) {
        let [from, to] = [from, to].map(|path| self.inside(path));
        self.operations.push(Operation::Bind { from, to, access, if_there: false });
    }

    fn move_to(&mut self, from: &Path, to: &Path) {
        let [from, to] = [from, to].map(|path| self.inside(path));
        self.operations.push(Operation::Move { from, to });
    }

    /// Shows a directory of the system. Where the host has a link, such as `/bin` to `usr/bin`, so has the sandbox.
    fn system_directory(&mut self, path: &Path) {
        match fs::read_link(path) {
            Ok(target) => self.symlink(path, &target),
            Err(_) if self.host.answers.is_directory(path) => self.show(path),
            Err(_) => {}
        }
    }

    /// Shows a directory or a file of the host, read-only and at its own path.
    fn show(&mut self, path: &Path) {
        if self.is_shown(path) {
            self.shown.insert(path.to_path_buf());
            return;
        }
        if self.present.iter().any(|present| present.starts_with(path)) {
            return;
        }
        self.mount_point(path, self.host.has_directory(path));
        let closed = self.host.stage.filter(|stage| stage.closed().any(|closed| closed == path));
        let from = closed.and_then(|stage| stage.given(path));
        self.bind_if_there(from.as_deref().unwrap_or(path), path);
        self.shown.insert(path.to_path_buf());
    }

    /// Shows what is at `from`, on the host or in the stage, at `to`. If it is not to be written to, it is mounted read-only there.
    fn bind(&mut self, from: &Path, to: &Path) {
        let (from, to) = (c_string(from.as_os_str()), self.inside(to));
        self.operations.push(Operation::Bind { from, to, access: Access::AsIs, if_there: false });
    }

    /// The same, for what nobody asks for by name: it may have gone when the sandbox is made.
    fn bind_if_there(&mut self, from: &Path, to: &Path) {
        let (from, to) = (c_string(from.as_os_str()), self.inside(to));
        self.operations.push(Operation::Bind { from, to, access: Access::AsIs, if_there: true });
    }

    /// Has a directory of the host's be writable, in which the target directory's others may lie: those are not.
    fn profiles(&mut self, path: &Path) {
        self.mount_point(path, true);
        let mut directories: Vec<_> =
            fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
        directories.retain(|path| fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_dir()));
        directories.sort();
        let Some(given) = self.host.stage.and_then(|stage| stage.given(path)) else { return };
        self.bind(&given, path);
        for path in directories {
            self.bind_if_there(&path, &path);
        }
        self.shown.insert(path.to_path_buf());
    }

    /// Covers a directory with a private one, where it would otherwise be the host's.
    fn writable(&mut self, path: &Path, mode: u32) {
        if !self.is_shown(path) {
            self.directory(path, mode);
        } else if self.host.answers.is_directory(path)
            && !self.shown.contains(path)
            && !self.host.facts.tools.iter().any(|tools| tools == path)
        {
            self.mount_tmpfs(path);
            self.covered.insert(path.to_path_buf());
            self.present.insert(path.to_path_buf());
        }
    }

    fn mount_tmpfs(&mut self, path: &Path) {
        let (path, options) = (self.inside(path), Some(self.tmpfs.clone()));
        self.operations.push(Operation::Mount { kind: c"tmpfs", path, flags: MsFlags::empty(), options, kept: None });
    }

    /// Shows what the test asks for by name, over all else.
    fn binds(&mut self, spec: &Spec) {
        for Bind { from, to, writable } in spec.binds {
            let [from, to] = [from, to].map(|path| self.host.facts.absolute(spec, path));
            // The host's tree is as it is.
            let to = if spec.mount { self.physical(&to) } else { to };
            if spec.mount {
                // What is missing is told of later.
                self.mount_point(&to, from.is_dir() || !from.exists());
            }
            let given = self.host.stage.filter(|_| *writable).and_then(|stage| stage.given(&from));
            let access = if spec.mount || *writable { Access::AsIs } else { self.read_only(&from, &to) };
            // Where the package lies elsewhere than when it was compiled, `..` may lead to the root. No mount is made there.
            let inside = if to == Path::new("/") { CString::default() } else { self.inside(&to) };
            let from = c_string(given.as_ref().unwrap_or(&from).as_os_str());
            self.operations.push(Operation::Bind { from, to: inside, access, if_there: false });
            self.covered.remove(&to);
            self.shown.insert(to);
        }
    }

    /// How what lies at `from` on the host is shown at `to`, if only to be read, where the host's mounts are as they are.
    fn read_only(&self, from: &Path, to: &Path) -> Access {
        let from = self.host.answers.canonical(from);
        let inside = |mount: &Path| Some(self.inside(&to.join(mount.strip_prefix(&from).ok()?)));
        Access::ReadOnly { below: self.host.mounts_below(&from).filter_map(inside).collect() }
    }

    /// Makes a directory or an empty file to mount something on, unless it is there. In what is shown, nothing can be made.
    fn mount_point(&mut self, path: &Path, is_directory: bool) {
        if is_directory {
            self.directory(path, 0o755);
        } else if let (Some(parent), Some(name), false) = (path.parent(), path.to_str(), self.is_there(path)) {
            self.directory(parent, 0o755);
            self.file(name, Vec::new());
        }
    }

    fn is_there(&self, path: &Path) -> bool {
        self.present.contains(path) || self.is_shown(path) || self.original(path).is_some()
    }

    /// Fills `/etc`.
    fn etc(&mut self, spec: &Spec) {
        let hostname = spec.hostname.unwrap_or(DEFAULT_HOSTNAME);
        let home = self.host.facts.home(spec);
        let home = as_field(&home).unwrap_or(OsStr::new("/root")).as_bytes();
        let passwd: [&[u8]; 3] =
            [b"root:x:0:0:root:", home, b":/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"];
        // Those two have their names.
        let own = |id: &u32| *id != 0 && *id != 65534;
        let user = spec
            .user
            .filter(|(uid, _)| own(uid))
            .map(|(uid, gid)| [format!("user:x:{uid}:{gid}:user:").as_bytes(), home, b":/bin/sh\n"].concat());
        let group = spec.user.map(|(_, gid)| gid).filter(own).map_or(String::new(), |gid| format!("user:x:{gid}:\n"));
        let alias = if hostname == DEFAULT_HOSTNAME { String::new() } else { format!(" {hostname}") };
        let hosts = format!("127.0.0.1\tlocalhost{alias}\n::1\tlocalhost ip6-localhost ip6-loopback\n");
        // Without a network there is no name server; glibc would look for one on the loopback and be told so at once.
        let resolv = if spec.net { Vec::new() } else { self.host.facts.resolv_conf.clone() };
        self.file("/etc/passwd", [passwd.concat(), user.unwrap_or_default()].concat());
        self.file("/etc/group", format!("root:x:0:\nnogroup:x:65534:\n{group}").into_bytes());
        self.file("/etc/hostname", format!("{hostname}\n").into_bytes());
        self.file("/etc/hosts", hosts.into_bytes());
        self.file("/etc/nsswitch.conf", NSSWITCH.into());
        self.file("/etc/resolv.conf", resolv);
        // All addresses of a name, so that `localhost` is both.
        self.file("/etc/host.conf", b"multi on\n".into());
        self.operations.push(Operation::MachineId { path: self.inside(Path::new("/etc/machine-id")) });
        let etc = Path::new("/etc");
        let of_host = etc.join(ETC_OF_HOST);
        self.directory(&of_host, 0o755);
        self.bind(etc, &of_host);
        for name in ETC {
            if let Some(target) = in_etc(name) {
                self.symlink(&etc.join(name), &target);
            }
        }
        self.shown.insert(of_host);
    }

    /// Fills `/dev`. Device nodes can't be made in a user namespace, so they are the host's.
    fn devices(&mut self, spec: &Spec) {
        let of_root = (spec.ids == Ids::Host).then_some("/dev/loop-control");
        let optional = OPTIONAL_DEVICES.into_iter().chain(of_root).filter(|path| Path::new(path).exists());
        for path in DEVICES.into_iter().chain(optional) {
            self.directory(Path::new(path).parent().unwrap_or(Path::new("/")), 0o755);
            self.operations.push(Operation::Node { path: self.inside(Path::new(path)) });
            self.present.insert(path.into());
            // Read-only, or whoever owns the node could change its mode, on the host. What is written to a device goes there all the same.
            self.bind(Path::new(path), Path::new(path));
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

    /// Mounts `/proc` and `/sys`.
    ///
    /// The kernel lets nobody mount a new one but where it finds one that nothing covers in part. So there is a whole one of each under
    /// what comes to lie on `/sys`. Whoever unmounts `/proc` or `/sys` can mount it anew, and so can a sandbox within this one.
    fn kernel_file_systems(&mut self, net: bool) {
        let [proc, whole_proc, sys, whole_sys] = ["/proc", "/sys/proc", "/sys", "/sys/sys"].map(Path::new);
        self.directory(whole_proc, 0o555);
        self.mount(c"proc", whole_proc);
        self.bind_inside(whole_proc, proc, Access::AsIs);
        let Some(stage) = self.host.stage else { return };
        if self.host.facts.owns_kernel_files {
            self.shield_proc(stage, proc, whole_proc);
        }
        self.directory(whole_sys, 0o555);
        if net {
            self.mount(c"sysfs", whole_sys);
            self.bind_inside(whole_sys, sys, Access::AsIs);
            if self.host.facts.owns_kernel_files {
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
        self.shown.extend([proc, sys].map(Path::to_path_buf));
    }

    /// Keeps real root from changing the machine through `proc` by accident. The one that is `whole` stays as it is.
    ///
    /// The kernel's files belong to root, and are writable for their owner, in whatever user namespace that is. An
    /// ordinary user can't write to them, nor can root here: all are read-only but the settings of the sandbox's own
    /// namespaces.
    fn shield_proc(&mut self, stage: &Stage, proc: &Path, whole: &Path) {
        for name in KERNEL_FILES {
            self.bind_to_itself(&proc.join(name), &stage.host_proc().join(name), read_only());
        }
        let (sys, settings) = (proc.join("sys"), stage.settings());
        self.bind(&settings, &sys);
        for (part, access) in [(OWN, Access::AsIs), (MACHINE, read_only())] {
            self.bind_inside(&whole.join("sys"), &sys.join(part), access);
        }
    }

    /// The same for `/sys`, of which interfaces are the sandbox's own.
    fn shield_sys(&mut self) {
        let [sys, interfaces] = ["/sys", "/sys/devices/virtual/net"].map(Path::new);
        self.bind_to_itself(sys, sys, Access::AsIs);
        // It becomes a mount of its own before, and stays as it is.
        self.bind_to_itself(interfaces, interfaces, Access::AsIs);
        self.operations.push(Operation::ReadOnly { path: self.inside(sys) });
    }

    /// Gives a sandbox with the host's tree and a network of its own a `/run` of its own, where programs put what belongs to a network:
    /// `ip netns` and iptables, for example. What the host has there is shown by links, so that its sockets can be used.
    fn run(&mut self, stage: &Stage, net: bool) {
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
    fn let_ping(&mut self) {
        let last = match self.ids {
            Ids::Range(count) => count - 1,
            Ids::One | Ids::Host => 0,
        };
        let path = self.inside(Path::new("/proc/sys/net/ipv4/ping_group_range"));
        self.operations.push(Operation::Setting { path, value: format!("0 {last}").into_bytes() });
    }

    /// Makes a mount of its own of a path that is there already, if the host has something `on_host`.
    fn bind_to_itself(&mut self, path: &Path, on_host: &Path, access: Access) {
        if on_host.exists() {
            self.bind_inside(path, path, access);
        }
    }
}

fn read_only() -> Access {
    Access::ReadOnly { below: Vec::new() }
}

/// What a link in `/etc` of this name is to hold, so that it leads to what the host has there; nothing if the host has nothing.
fn in_etc(name: &str) -> Option<PathBuf> {
    let path = Path::new("/etc").join(name);
    let canonical = path.canonicalize().ok()?;
    match (fs::read_link(&path), canonical.strip_prefix("/etc")) {
        // What lies elsewhere is shown in its place. Programs look at what the link of `localtime` holds.
        (Ok(target), Err(_)) => Some(target),
        (_, Ok(below)) => Some(Path::new(ETC_OF_HOST).join(below)),
        (Err(_), Err(_)) => Some(canonical),
    }
}

/// The names that a path consists of, the last first. `.` is none.
fn names_reversed(path: &Path) -> Vec<OsString> {
    let name = |component: Component<'_>| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::CurDir | Component::RootDir | Component::Prefix(_) => None,
    };
    path.components().rev().filter_map(name).collect()
}

/// `path` for the kernel. Paths of the system hold no NUL; one made of an environment variable can't either.
fn c_string(path: &OsStr) -> CString {
    CString::new(path.as_bytes()).unwrap_or_default()
}
