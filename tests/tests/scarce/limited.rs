//! Runs of which something is limited, whatever it is.

use std::collections::BTreeSet;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{self, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use std::{fs, thread};

use belljar_tests::{Run, mark, marked, this_binary, wait_until};
use nix::unistd::geteuid;

use crate::{until_killed, with_tests};

/// What is scarce in a run.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Scarce {
    Files,
    Processes,
    Addresses,
    Data,
    FileSizes,
    Stack,
    LockedMemory,
    Signals,
    /// In a cgroup of version 1, which only root can make.
    Memory,
    /// Where temporary files, the report, the trace and the build are.
    Space,
}

impl Scarce {
    const ALL: [Self; 10] = [
        Self::Files,
        Self::Processes,
        Self::Addresses,
        Self::Data,
        Self::FileSizes,
        Self::Stack,
        Self::LockedMemory,
        Self::Signals,
        Self::Memory,
        Self::Space,
    ];

    /// What a test says that fails for want of it: the name of the limit, or what to write for more.
    pub(crate) fn named(self) -> &'static [&'static str] {
        match self {
            Self::Files => &["RLIMIT_NOFILE", "limit on open files"],
            Self::Processes => &["RLIMIT_NPROC", "ulimit -u"],
            // The last is what the standard library says.
            Self::Addresses => &["RLIMIT_AS", "ulimit -v", "memory allocation of"],
            Self::Data => &["RLIMIT_DATA", "ulimit -d", "memory allocation of"],
            Self::FileSizes => &["RLIMIT_FSIZE", "ulimit -f"],
            Self::Stack => &["RLIMIT_STACK", "ulimit -s"],
            Self::LockedMemory => &["RLIMIT_MEMLOCK"],
            Self::Signals => &["RLIMIT_SIGPENDING"],
            Self::Memory => &["memory.limit_in_bytes"],
            Self::Space => &["No space left on device"],
        }
    }

    /// The option of prlimit(1) that makes it scarce, and between what the limits lie.
    fn option(self) -> Option<(&'static str, u64, u64)> {
        match self {
            Self::Files => Some(("nofile", 3, 300)),
            Self::Processes => Some(("nproc", 1, 200)),
            Self::Addresses => Some(("as", 1 << 20, 2 << 30)),
            Self::Data => Some(("data", 1 << 16, 1 << 30)),
            Self::FileSizes => Some(("fsize", 0, 1 << 20)),
            Self::Stack => Some(("stack", 1 << 12, 8 << 20)),
            Self::LockedMemory => Some(("memlock", 0, 1 << 20)),
            Self::Signals => Some(("sigpending", 0, 100)),
            Self::Memory | Self::Space => None,
        }
    }
}

/// A number between these, of each order as likely as of any other.
fn number(chance: &mut fastrand::Rng, lowest: u64, highest: u64) -> u64 {
    let (lowest, highest) = ((lowest + 1) as f64, (highest + 1) as f64);
    (lowest * (highest / lowest).powf(chance.f64())) as u64 - 1
}

/// A run under limits.
#[derive(Debug)]
pub(crate) struct Limited {
    pub(crate) scarce: Scarce,
    pub(crate) limit: u64,
    pub(crate) threads: usize,
    /// Whether root runs it, where that can be chosen.
    pub(crate) as_root: bool,
}

impl Limited {
    pub(crate) fn new(seed: u64) -> Self {
        let mut chance = fastrand::Rng::with_seed(seed);
        let scarce = Scarce::ALL[chance.usize(..Scarce::ALL.len())];
        let limit = match scarce {
            Scarce::Files => chance.u64(3..=300),
            Scarce::Memory => number(&mut chance, 1 << 19, 64 << 20),
            // Room for names, or none.
            Scarce::Space => chance.u64(..2),
            other => {
                other.option().map(|(_, lowest, highest)| number(&mut chance, lowest, highest)).unwrap_or_default()
            }
        };
        let threads = [1, 4, 16, 64][chance.usize(..4)];
        // To root, the limit on processes does not apply, and only root can make cgroups.
        let as_root = match scarce {
            Scarce::Processes => false,
            Scarce::Memory => geteuid().is_root(),
            _ => chance.bool(),
        };
        Self { scarce, limit, threads, as_root }
    }

    /// Runs these tests, as another user than those of other workers, of whom each has a number. `None` if that can't be done here.
    pub(crate) fn run(&self, names: &[&str], worker: u32) -> Option<Run> {
        let is_root = geteuid().is_root();
        let groups = Groups::make(matches!(self.scarce, Scarce::Memory).then_some(self.limit));
        if matches!(self.scarce, Scarce::Memory) && groups.memory.is_none() {
            return None;
        }
        let directory = tempfile::tempdir().expect("a directory");
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o777)).expect("chmod");
        let mut command = until_killed();
        command.args([
            "sh",
            "-c",
            "for group in $GROUPS_TO_JOIN; do echo $$ > $group/cgroup.procs; done; exec \"$@\" 2>&1",
            "sh",
        ]);
        command
            .env("GROUPS_TO_JOIN", groups.all().map(|group| group.display().to_string()).collect::<Vec<_>>().join(" "));
        if matches!(self.scarce, Scarce::Space) {
            command.args(if is_root {
                &["unshare", "--mount"][..]
            } else {
                &["unshare", "--mount", "--map-root-user"]
            });
            command.args(["sh", "-c", FILL, "sh"]).env("FULL", directory.path()).env("NAMES", self.limit.to_string());
            command.env("BINARY", this_binary().get_program()).env("TMPDIR", directory.path());
        }
        if matches!(self.scarce, Scarce::Space | Scarce::FileSizes) {
            command.env("BELLJAR_REPORT", format!("json:{}/report", directory.path().display()));
            command.env("BELLJAR_TRACE", directory.path().join("trace"));
        }
        if matches!(self.scarce, Scarce::Processes) && !is_root {
            // There, the others of this user don't count.
            command.args(["unshare", "--user", "--map-root-user"]);
        }
        if is_root && !self.as_root {
            // Containers may have no users from 65,536 on.
            let user = 30_000 + process::id() % 3000 * (WORKERS + 2) + worker;
            command.args(["setpriv", &format!("--reuid={user}"), &format!("--regid={user}"), "--clear-groups"]);
        }
        if let Some((option, ..)) = self.scarce.option() {
            command.arg("prlimit").arg(format!("--{option}={}", self.limit));
        }
        let run = run_to_end(with_tests(&mut command, names, self.threads));
        // One that was killed can't have removed its own.
        let may_leave = run.status.code() != Some(101);
        let left = groups.remove();
        assert!(!run.output.contains("setpriv: "), "{self:?} did not begin: {}", run.output);
        assert!(may_leave || left.is_empty(), "{self:?} left {left:?}, of:\n{}", run.output);
        Some(run)
    }
}

/// Makes a file system with the binary and its build directory in it, and fills it.
const FILL: &str = r#"
    mount -t tmpfs -o size=64k,nr_inodes=16,mode=1777 full "$FULL" && mkdir -p "$FULL/debug/deps" && cd "$FULL" &&
    echo 'Signature: 8a477f597d28d172789f06886806bc55' > CACHEDIR.TAG && : > debug/deps/scarce &&
    mount --bind "$BINARY" debug/deps/scarce || exit
    dd if=/dev/zero of=full bs=4k 2> /dev/null
    name=0
    [ "$NAMES" = 1 ] || while mkdir $name 2> /dev/null; do name=$((name + 1)); done
    cd / && exec "$@"
"#;

/// The same as [`run`], but what is written goes through a pipe: files may be limited.
fn run_to_end(command: &mut Command) -> Run {
    let mark = mark(command);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("the command runs");
    let mut pipe = child.stdout.take().expect("a pipe");
    let reader = thread::spawn(move || {
        let mut output = Vec::new();
        pipe.read_to_end(&mut output).map(|_| output)
    });
    let status = child.wait().expect("wait");
    let mut run = Run { status, output: String::new(), left: marked(&mark) };
    // What is killed with its parent may be about to end.
    let start = Instant::now();
    while !run.left.is_empty() && start.elapsed() < Duration::from_secs(2) {
        thread::sleep(Duration::from_millis(5));
        run.left = marked(&mark);
    }
    run.kill_left();
    run.output = String::from_utf8_lossy(&reader.join().expect("read").expect("read")).into_owned();
    run
}

/// The cgroups of version 1 that a run is in.
pub(crate) struct Groups {
    pub(crate) memory: Option<PathBuf>,
    pids: Option<PathBuf>,
}

impl Groups {
    pub(crate) fn make(memory: Option<u64>) -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let name = format!("belljar-scarce-{}-{}", process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let make = |controller: &str| {
            let own = fs::read_to_string("/proc/self/cgroup").ok()?;
            let own = own.lines().find_map(|line| line.split_once(&format!(":{controller}:/")))?.1.to_owned();
            let group = Path::new("/sys/fs/cgroup").join(controller).join(own).join(&name);
            fs::create_dir(&group).ok().map(|()| group)
        };
        let groups = Self { memory: memory.and_then(|_| make("memory")), pids: make("pids") };
        if let Some((group, limit)) = groups.memory.as_ref().zip(memory) {
            fs::write(group.join("memory.limit_in_bytes"), limit.to_string()).expect("a limit");
        }
        groups
    }

    fn all(&self) -> impl Iterator<Item = &PathBuf> {
        self.memory.iter().chain(&self.pids)
    }

    /// Removes them, and returns which there were below.
    pub(crate) fn remove(self) -> BTreeSet<PathBuf> {
        let mut left = BTreeSet::new();
        self.all().for_each(|group| remove_below(group, &mut left));
        for group in self.all() {
            left.remove(group);
        }
        left
    }
}

/// Removes a cgroup and all below, when the kernel has taken leave of their processes.
fn remove_below(group: &Path, removed: &mut BTreeSet<PathBuf>) {
    let below = fs::read_dir(group).expect("a cgroup").flatten().filter(|entry| entry.path().is_dir());
    below.for_each(|entry| remove_below(&entry.path(), removed));
    wait_until(|| fs::remove_dir(group).is_ok());
    removed.insert(group.to_owned());
}

/// How many runs there are at once: for most of the time, each waits for its test that sleeps.
pub(crate) const WORKERS: u32 = 8;
