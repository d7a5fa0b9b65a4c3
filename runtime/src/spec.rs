//! What a test asks for: plain data, written by the macro as a constant.
//!
//! It lies in the read-only data of the test binary, at one address in every process that was forked from it. What
//! travels from the test binary to the zygote and to the sandbox is therefore just that address.

use std::iter;
use std::time::Duration;

/// The home directory of a test to which the environment gives none, by an absolute path.
pub(crate) const DEFAULT_HOME: &str = "/root";

/// The host name inside, where a test asks for none.
pub(crate) const DEFAULT_HOSTNAME: &str = "localhost";

/// One isolated test.
#[derive(Debug)]
pub struct Test {
    /// The path of the test function, crate first.
    pub name: &'static str,
    /// The arguments of its attribute, as they are written.
    pub arguments: &'static str,
    /// The sandbox it runs in.
    pub spec: Spec,
    /// How long the body may run.
    pub timeout: Option<Duration>,
    /// Whether it is skipped where the host can't make its sandbox. Otherwise it then fails.
    pub skip_unsupported: bool,
    /// If `#[should_panic]` stands on it, the text that is expected; any panic has the empty one. The harness takes such a panic for a
    /// pass, so ours must not panic for other reasons.
    pub should_panic: Option<&'static str>,
    /// The body, as the status code that its return value stands for.
    pub body: fn() -> u8,
}

/// A sandbox, as a test asks for it. `user`, `pid`, `ipc`, `uts`, `cgroup` and a private mount table are no part of it:
/// they are always there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    /// A network of its own, with `lo` up; otherwise the host's.
    pub net: bool,
    /// A root of its own; otherwise the host's tree, in a private mount table.
    pub mount: bool,
    /// What that root consists of.
    pub root: Root,
    /// The preparation whose root it starts from. What makes the root is then as that one has it.
    pub from: Option<Preparation>,
    /// Whether tests start from what it leaves: whether it is a preparation.
    pub is_preparation: bool,
    /// The most that is written to the root, in bytes, if a limit is written.
    pub tmpfs: Option<u64>,
    /// The host name inside, if one is asked for.
    pub hostname: Option<&'static str>,
    /// Who the test is inside, a user and a group, if not root.
    pub user: Option<(u32, u32)>,
    /// Which users and groups there are inside.
    pub ids: Ids,
    /// How much later it is inside, by CLOCK_MONOTONIC and CLOCK_BOOTTIME, if the test has clocks of its own.
    pub time: Option<[Duration; 2]>,
    /// What of the host is shown besides.
    pub binds: &'static [Bind],
    /// Environment variables that are set, names and values.
    pub env: &'static [(&'static str, &'static str)],
    /// Whether all others are removed.
    pub clear_env: bool,
    /// The most memory that all processes have together, in bytes, if a limit is written.
    pub memory: Option<u64>,
    /// The most processes and threads that the test has, its own two included, if a limit is written.
    pub pids: Option<u32>,
    /// The most CPU time, in thousandths of a core, if a limit is written.
    pub cpu: Option<u32>,
    /// Cargo's `CARGO_MANIFEST_DIR` when the test was compiled.
    pub manifest_dir: Option<&'static str>,
    /// Cargo's `CARGO_TARGET_TMPDIR` when the test was compiled: integration tests and benches have one.
    pub target_tmpdir: Option<&'static str>,
    /// Where the test begins, if that is not where the test binary was started. No attribute says so: an image does.
    pub working_directory: Option<&'static str>,
}

/// A preparation, as the test that is to be run for it. Each is known by its address: there is one.
#[derive(Clone, Copy, Debug)]
pub struct Preparation(pub &'static Test);

impl PartialEq for Preparation {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self.0, other.0)
    }
}

impl Eq for Preparation {}

/// What the root of a sandbox consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Root {
    /// A tmpfs with a small system in it.
    Tmpfs,
    /// The host's tree, copy-on-write.
    Overlay,
    /// A directory of the host, copy-on-write. A path that is relative begins at the package.
    Directory(&'static str),
    /// An image, by the argument that names it. It is unpacked before the test: the sandbox is then planned as for a directory.
    Image(&'static str),
}

/// The users and groups that there are in a sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ids {
    /// Root, who is whoever runs the tests.
    One,
    /// So many, from 0 on.
    Range(u32),
    /// The host's: there is no user namespace.
    Host,
}

impl Ids {
    /// Whether a user and a group are among them.
    pub(crate) fn has(self, (uid, gid): (u32, u32)) -> bool {
        match self {
            Self::One => (uid, gid) == (0, 0),
            Self::Range(count) => uid.max(gid) < count,
            Self::Host => true,
        }
    }
}

/// A path of the host that a test asks to be shown.
#[derive(Debug, PartialEq, Eq)]
pub struct Bind {
    /// The path on the host. One that is relative begins at the package.
    pub from: &'static str,
    /// The path inside.
    pub to: &'static str,
    /// Whether the test may change what is there.
    pub writable: bool,
}

impl Spec {
    /// What `#[isolated]` asks for. The macro writes what differs.
    pub const PLAIN: Self = Self {
        net: true,
        mount: true,
        root: Root::Tmpfs,
        from: None,
        is_preparation: false,
        tmpfs: None,
        hostname: None,
        user: None,
        ids: Ids::One,
        time: None,
        binds: &[],
        env: &[],
        clear_env: false,
        memory: None,
        pids: None,
        cpu: None,
        manifest_dir: None,
        target_tmpdir: None,
        working_directory: None,
    };

    /// The same, with the root that `preparation` leaves. What makes the root comes from there.
    #[must_use]
    pub const fn starting_from(self, preparation: &'static Test) -> Self {
        let Self { root, tmpfs, ids, binds, .. } = preparation.spec;
        if let (Some((uid, gid)), Ids::Range(count)) = (self.user, ids) {
            assert!(uid < count && gid < count, "`user` is none of the ids that the preparation has: raise its `uids`");
        }
        Self { mount: true, root, from: Some(Preparation(preparation)), tmpfs, ids, binds, ..self }
    }

    /// The preparations whose roots lie below this one: the one that it starts from, the one that this started from, and so on.
    pub(crate) fn preparations(&self) -> impl Iterator<Item = &'static Test> + use<> {
        let below = |test: &&'static Test| test.spec.from.map(|Preparation(test)| test);
        iter::successors(self.from.map(|Preparation(test)| test), below)
    }

    /// Whether the test has written a limit, which is then a promise.
    pub(crate) fn has_limits(&self) -> bool {
        self.memory.is_some() || self.pids.is_some() || self.cpu.is_some()
    }

    /// The value that the test gives to an environment variable, if it does.
    pub(crate) fn variable(&self, name: &str) -> Option<&'static str> {
        self.env.iter().find(|(other, _)| *other == name).map(|(_, value)| *value)
    }

    /// Whether the root is a copy: of a tree of the host, or of what a preparation has left.
    pub(crate) fn has_copy(&self) -> bool {
        self.mount && (self.root != Root::Tmpfs || self.from.is_some())
    }

    /// Whether the root is put together in a directory of its tmpfs, and the test binary gets a descriptor of that tmpfs.
    pub(crate) fn hands_out_root(&self) -> bool {
        self.has_copy() || self.is_preparation
    }
}

impl Test {
    /// A test that asks for nothing, and does nothing. The macro writes what differs.
    pub const PLAIN: Self = Self {
        name: "",
        arguments: "",
        spec: Spec::PLAIN,
        timeout: None,
        skip_unsupported: false,
        should_panic: None,
        body: || 0,
    };

    /// The name as the harness prints it, without the crate.
    pub(crate) fn short_name(&self) -> &'static str {
        // A search for text of several bytes prepares tables first. Each test's process asks for this once or twice.
        self.name.split_once(':').and_then(|(_, name)| name.strip_prefix(':')).unwrap_or(self.name)
    }
}
