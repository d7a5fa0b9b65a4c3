//! Tests that rename the host, mount, edit routes and bind port 80: each in its own Linux sandbox, without root.
//!
//! ```test_harness
//! use belljar::isolated;
//!
//! #[isolated]
//! fn renames_the_host() {
//!     nix::unistd::sethostname("jar").unwrap(); // the host never notices
//!     std::fs::write("/etc/hosts", "10.0.0.5 db\n").unwrap();
//!     let server = std::net::TcpListener::bind("0.0.0.0:80").unwrap();
//!     // Whatever is still running, mounted or written at the end is gone with the sandbox.
//! }
//! ```
//!
//! [`isolated`] says what can be asked for; [`run`] is for what has no attribute. All else is plain `cargo test`: no root, no daemon, no runner of its own.
//!
//! # By task
//!
//! | to | see |
//! | --- | --- |
//! | run a test in a sandbox, with limits, users, clocks, another root | [`isolated`] |
//! | fill a root once, and start tests from copies of it | [`prepared`](macro@prepared) |
//! | have several hosts, and links that lose packets | [`net`] |
//! | make, keep and enter namespaces | [`ns`] |
//! | freeze, kill, limit and measure some processes of a test | [`Group`] |
//! | have system calls fail, or each of them once | [`Fault`], [`Sweep`] |
//! | call a function in a sandbox, where there is no attribute | [`run`], [`spec!`] |
//! | learn what a test has used, or has changed in a copy | [`usage`], [`changes`] |
//! | keep a function from running on the machine itself | [`whereabouts`] |
//! | learn what a machine lets sandboxes have, and what to type | [`doctor`], `BELLJAR_DOCTOR=1 cargo test` |
//! | end tests that hang, look into sandboxes, list what tests cost | [the environment](#environment) |
//!
//! A server of which each test has one, on the same port:
//!
//! ```test_harness
//! use std::net::{TcpListener, TcpStream};
//!
//! #[belljar::isolated(timeout = "30s")]
//! fn serves() {
//!     let server = TcpListener::bind("127.0.0.1:80").unwrap();
//!     TcpStream::connect("127.0.0.1:80").unwrap();
//!     server.accept().unwrap();
//! }
//! ```
//!
//! # What a test finds
//!
//! It is root, in fresh namespaces of its own (see namespaces(7)): user, pid, mount, ipc, uts and cgroup in any case, and a
//! network that consists of `lo`. Its root is a tmpfs with the host's `/usr`, the repository, the target directory, the
//! toolchain, and what `PATH` and `LD_LIBRARY_PATH` name, all read-only and in their places; a small `/etc`; a `/dev`, `/proc`
//! and `/sys` that fit; and `/tmp`, `/run`, `/var`, `$HOME` and `CARGO_TARGET_TMPDIR`, which are the test's own, and have nothing of the
//! host's but what is shown, such as a toolchain in `~/.cargo`. Statics,
//! the environment, the working directory and signal handlers are as they were when the test binary began.
//!
//! [`net`] makes more hosts in it, with switches, routers and bad links between them. [`prepared`](macro@prepared) makes data once for many tests.
//!
//! # What a verdict means
//!
//! A test passes only if its body returned (or panicked, if it should), said so, and its process then ended cleanly. Calling
//! `exit(0)`, a signal, a stack overflow, `exec`, a closed descriptor, memory that is used up and a timeout are failures, each
//! with a message of its own. Where the host can't make the sandbox, the test fails with the step, the path, the error, and
//! the likely cause: it never runs less isolated than it says.
//!
//! # Environment
//!
//! belljar reads these variables once, before `main`. What a test does to the environment changes nothing.
//!
//! | variable | value | meaning |
//! | --- | --- | --- |
//! | `BELLJAR_TIMEOUT` | `60s`, `1m 30s` | the timeout of every isolated test that has none of its own |
//! | `BELLJAR_REPORT` | `-`, `json:PATH` | what each test has cost: a table at the end of the run, or lines in a file |
//! | `BELLJAR_TRACE` | a path | what was done for each test when: a file for a trace viewer |
//! | `BELLJAR_UNSUPPORTED` | `skip`, `fail` | what becomes of all tests that this host can't run |
//! | `BELLJAR_ON_FAIL` | `shell` | keeps the sandboxes of tests that fail |
//! | `BELLJAR_DOCTOR` | `1`, `json` | tells what this host lets sandboxes have, in place of running tests |
//! | `BELLJAR_CGROUP` | a path | the cgroup below which those of sandboxes go |
//!
//! A variable that is empty counts as not set. If one has a value that is not in the table, or if there is another variable `BELLJAR_...`,
//! no isolated test runs: each fails and says what to write. Names that begin with `BELLJAR_TESTS_` are for belljar's own tests. A test sees `BELLJAR_TIMEOUT` and
//! `BELLJAR_UNSUPPORTED`, and so does a test binary that it starts; the others are removed from its environment.
//!
//! Tables have colours on terminals. `NO_COLOR`, `CLICOLOR` and `CLICOLOR_FORCE` are heeded.
//!
//! Paths of files begin at the working directory, which is the package's under Cargo and nextest.
//!
//! **`BELLJAR_TIMEOUT`** also ends tests that hang by accident, such as one that reads from a pipe which a daemon holds open. The
//! message says that the timeout is the environment's.
//!
//! **`BELLJAR_REPORT`**: to the file, each test adds a line when it is over: an object with the keys `test`, `verdict` (`passed`,
//! `panicked`, which `#[should_panic]` may take for a pass, `failed` or `skipped`), `wall_seconds`, `cpu_seconds`, `memory_peak_bytes`,
//! `pids_peak` (threads count, and so does init), `left_over` (the names of the processes that were left) and `version`, which is 1, and which
//! grows when a key goes, or means something else. What is not known is `null`.
//!
//! **`BELLJAR_TRACE`**: the thread that runs a test, the zygote and the sandbox tell each step. Trace viewers, such as
//! `chrome://tracing` and <https://ui.perfetto.dev>, show it. To tell takes some microseconds a step. There is no `-`: nobody reads a
//! trace in a terminal.
//!
//! **`BELLJAR_UNSUPPORTED`**: `fail` has those tests fail too that have `unsupported = "skip"`. A test that was skipped passes, as far as
//! the harness knows; it says so, and a list at the end of the run says so again. What a test asks for and does not exist, such as a
//! path, is no reason to skip it.
//!
//! **`BELLJAR_ON_FAIL`**: the sandbox of a test that fails, or runs out of time, stays: with what it has mounted and written, and with
//! the processes that it has left. Standard error then says how to enter it, by nsenter(1), and how to let it go; the run waits for
//! that. Hosts of laboratories (the first 64) stay too, and it says how to enter each. So it is an error where nobody would answer: if standard error is no terminal, or if `CI` is set (to anything but `false`).
//! nextest captures standard error, unless `--no-capture` is given.
//!
//! **`BELLJAR_DOCTOR`**: write `BELLJAR_DOCTOR=1 cargo test`. `1` is a table, `json` what [`Diagnosis::to_json`] writes.
//! The first test binary tells; the others say on standard error that they have run no test. The status is 0 if `#[isolated]` tests run
//! here, else 1. [`doctor`] tells a program the same.
//!
//! - Only test binaries of the standard harness do this. Documentation tests, programs with `harness = false`, and test binaries
//!   without belljar run as always: what is green there has run.
//! - Arguments that ask for tests, such as a name, `--exact`, `--ignored` and `--list`, are errors with the status 2, so that nothing
//!   is green that did not run. Runners such as nextest use them: `BELLJAR_DOCTOR=1 cargo nextest run` fails when it lists the tests.
//! - The test binaries of one `cargo test` know of each other by the file `belljar-doctor` in the target directory. Where there can be
//!   none, or a runner stands between Cargo and them, each tells.
//!
//! **`BELLJAR_CGROUP`** is written as proc_pid_cgroup(5) has it. By default, it is the cgroup that the tests run in.
//!
//! # Features
//!
//! `net`, on by default: [`net`], a network laboratory.
//!
//! `faults`, on by default: [`Fault`], system calls that fail, and [`Sweep`]. Without these two, belljar builds faster.
//!
//! `images`: an image as the root of a test, such as `root = "oci:DIR"`. It takes crates that read images.
//!
//! `systemd`: a test with a limit may be impossible where the tests run. The user may not divide that cgroup, as after any login, or systemd
//! would end the unit together with the test. Then the test binary asks systemd for a new scope, by busctl(1), and moves there. Without the
//! feature, the test fails and says what to type.
//!
//! # What it is not
//!
//! A boundary against hostile code. It keeps honest tests from harming the host and each other.
#![cfg_attr(docsrs, feature(doc_cfg))]
#![warn(clippy::unwrap_used, clippy::expect_used, reason = "hosts, users and test bodies do the unexpected")]

#[cfg(target_os = "linux")]
mod cgroup;
#[cfg(all(target_os = "linux", any(feature = "net", feature = "faults")))]
mod chance;
#[cfg(target_os = "linux")]
mod collect;
#[cfg(target_os = "linux")]
mod diagnosis;
#[cfg(all(target_os = "linux", feature = "faults"))]
mod faults;
#[cfg(target_os = "linux")]
mod frame;
#[cfg(all(target_os = "linux", any(test, fuzzing)))]
pub mod fuzzed;
#[cfg(target_os = "linux")]
mod harness;
#[cfg(all(target_os = "linux", feature = "images"))]
mod images;
#[cfg(target_os = "linux")]
mod json;
#[cfg(all(target_os = "linux", feature = "net"))]
#[cfg_attr(docsrs, doc(cfg(feature = "net")))]
pub mod net;
#[cfg(target_os = "linux")]
pub mod ns;
#[cfg(target_os = "linux")]
mod proc;
#[cfg(target_os = "linux")]
mod rootfs;
#[cfg(target_os = "linux")]
mod sandbox;
#[cfg(target_os = "linux")]
mod settings;
#[cfg(target_os = "linux")]
mod sorted;
#[cfg(target_os = "linux")]
mod spec;
#[cfg(target_os = "linux")]
mod start;
#[cfg(all(target_os = "linux", feature = "faults"))]
mod sweep;
#[cfg(target_os = "linux")]
mod sys;
#[cfg(target_os = "linux")]
mod terminal;
#[cfg(target_os = "linux")]
mod text;
#[cfg(target_os = "linux")]
mod whereabouts;
#[cfg(target_os = "linux")]
mod zygote;

#[cfg(all(target_os = "linux", feature = "faults"))]
#[cfg_attr(docsrs, doc(cfg(feature = "faults")))]
pub use faults::{ActiveFault, Fault, FaultError};
#[cfg(target_os = "linux")]
pub use frame::changes::Change;
#[cfg(target_os = "linux")]
pub use frame::usage::Usage;
#[cfg(target_os = "linux")]
pub use harness::bytes::{Failure, Spec, run};
#[cfg(target_os = "linux")]
pub use harness::doctor::{Diagnosis, doctor};
#[cfg(target_os = "linux")]
pub use sandbox::Group;
#[cfg(all(target_os = "linux", feature = "faults"))]
#[cfg_attr(docsrs, doc(cfg(feature = "faults")))]
pub use sweep::{Ended, Sweep, Swept};
#[cfg(target_os = "linux")]
pub use whereabouts::Whereabouts;

/// What this sandbox has used until now. Outside of sandboxes, nothing is known.
///
/// The test binary, outside, reads it: it makes no difference what the test does to its own view of the system. Where it has no room for the question,
/// nothing is known.
///
/// ```test_harness
/// # use belljar::isolated;
/// #[isolated(memory = "1GiB", unsupported = "skip")]
/// fn the_cache_is_given_back() {
///     let cache = vec![1_u8; 64 << 20];
///     assert!(belljar::usage().memory > Some(64 << 20));
///     drop(cache);
///     assert!(belljar::usage().memory < Some(64 << 20));
/// }
/// ```
#[cfg(target_os = "linux")]
pub fn usage() -> Usage {
    sandbox::usage().unwrap_or_default()
}

/// What this test has changed in its root until now, in the order of the paths, if that is a copy: with `root = "overlay"`, or a
/// directory, or with `from`. What a preparation has changed is not among it. A test in such a root that fails has the same list printed.
///
/// A directory that was created is listed, and so is each entry in it. A directory that was removed is listed alone. A file that was
/// only opened for writing has not changed. Not listed is what the user who runs the tests can't read from outside: directories of other
/// users, which take `uids`, and directories whose mode locks out their owner.
///
/// # Errors
///
/// `Unsupported` if the root is no copy, or this is no sandbox. EOVERFLOW if the paths have more than 64 MiB together, as in a tree of a
/// thousand levels with long names. EMFILE or ETOOMANYREFS if there is no room for the question or for its answer.
///
/// ```test_harness
/// # use belljar::isolated;
/// use belljar::Change::{Created, Removed};
///
/// #[isolated(root = "overlay")]
/// fn moves_its_settings() -> std::io::Result<()> {
///     std::fs::rename("/etc/passwd", "/etc/users")?;
///     let changes = belljar::changes()?;
///     assert_eq!(changes, [Removed("/etc/passwd".into()), Created("/etc/users".into())]);
///     Ok(())
/// }
/// ```
#[cfg(target_os = "linux")]
pub fn changes() -> std::io::Result<Vec<Change>> {
    sandbox::changes()
}

/// Which sandbox this is. `None` outside of sandboxes.
///
/// ```test_harness
/// # use belljar::isolated;
/// /// What must never run on the machine itself.
/// fn flush_all_routes() {
///     assert!(belljar::whereabouts().is_some(), "not in a sandbox");
///     // ...
/// }
///
/// #[isolated(net)]
/// fn in_a_sandbox() {
///     flush_all_routes();
/// }
///
/// #[test]
/// #[should_panic(expected = "not in a sandbox")]
/// fn outside() {
///     flush_all_routes();
/// }
/// ```
#[cfg(target_os = "linux")]
pub fn whereabouts() -> Option<Whereabouts> {
    sandbox::whereabouts()
}

/// Makes a function a test that runs in a Linux sandbox of its own.
///
/// Words choose what is replaced, options say more. Namespaces of the kinds user, pid, ipc, uts and cgroup and a mount table
/// of its own are there in any case. One of these words alone, such as `uts`, keeps the host's network and files.
///
/// | written | network | file system |
/// | --- | --- | --- |
/// | `#[isolated]`, or with options only | its own, `lo` up | its own root, a tmpfs |
/// | `#[isolated(net, mount)]` | its own, `lo` up | its own root, a tmpfs |
/// | `#[isolated(net)]` | its own, `lo` up | the host's, in a mount table of its own, with a `/run` of its own |
/// | `#[isolated(mount)]` | the host's | its own root, a tmpfs |
/// | `#[isolated(uts)]` | the host's | the host's, in a mount table of its own |
///
/// | option | meaning | by default |
/// | --- | --- | --- |
/// | `timeout = "5s"` | everything is killed after that time, and what was running is told | none, or what `BELLJAR_TIMEOUT` says |
/// | `memory = "64MiB"` | the most memory of all processes together, the tmpfs included; whoever needs more has all killed | no limit |
/// | `pids = 32` | the most processes and threads, the two of the test itself included; fork(2) then gives EAGAIN | 1024, where it can be had |
/// | `cpu = 0.5` | the most CPU time, in cores | no limit |
/// | `root = "overlay"`, `root = "/dir"` | a root that is a copy: of the host's tree, or of a directory such as an unpacked image | a tmpfs |
/// | `root = "oci:DIR"`, `root = "image.tar"` | a root that is a copy of an image, with the feature `images`: see below | |
/// | `from = path` | a root that is a copy of what a preparation has left: see [`prepared`](macro@prepared) | |
/// | `tmpfs = "256MiB"` | the most that is written to the root | half of the memory, see tmpfs(5) |
/// | `hostname = "web1"` | the host name, see uname(2) | `localhost` |
/// | `user = 1000`, `user = "1000:100"` | who the test is inside: without root's powers, and the owner of all that is there | root |
/// | `user = "host"` | no user namespace: the test is the machine's own root, which must run it | |
/// | `uids = 65536` | how many users and groups there are | root alone |
/// | `bind = ["/src", "/src:rw", "/src:/dst", "/src:/dst:rw"]` | paths of the host that are shown, in their own places or in others, read-only unless `rw`; relative ones begin at the package | none |
/// | `env = ["NAME=value"]` | environment variables | inherited |
/// | `clear_env` | removes all others | |
/// | `boottime = "30d"` | for how much longer the machine has been up, by CLOCK_BOOTTIME and `/proc/uptime` | the host's |
/// | `monotonic = "1h"` | the same for CLOCK_MONOTONIC, which [`Instant`](std::time::Instant) reads | the host's |
/// | `unsupported = "skip"` | where the host can't make the sandbox, the test is skipped | it fails |
/// | `crate = path` | where this crate is re-exported | `::belljar` |
///
/// A copy is private: what is written to it goes to a tmpfs, and [`changes`] tells what that was. Files whose owner has no number
/// inside can't be changed in it. So where the tests don't run as root, root inside has the directories that every system has, such
/// as `/etc` and `/var/lib`, and the files in `/etc` that it edits; all else is as it is outside. Copies take overlayfs, and
/// Linux 5.11 or later. Before 6.6, a directory of the host's that had entries can't be removed, nor one be made where something
/// was removed (EIO). Where other file systems are mounted in the tree, the directories above them are put together out of copies, so
/// that they can't be moved or removed (EBUSY), and files of more than 1 MiB right in them are read-only. A path that begins with
/// `./` begins at the package; what is tested is shown in its place.
///
/// With the feature `images`, `root` takes images: `"oci:DIR"` or `"oci:DIR:TAG"` for a directory in the image layout of OCI, and the path of an
/// archive (`.tar`, `.tar.gz`, `.tgz`, `.tar.zst`, `.tar.zstd`, `.tzst`) that `docker save` has written, that holds such a layout, or that holds a tree. A path
/// that is relative begins at the package. It is unpacked once for each version, below the target directory. What the image says of its user,
/// environment and working directory holds where the test says nothing. Files that belong to others are root's without `uids`.
///
/// With `uids`, users other than root can be had, by setuid(2), chown(2) and programs that drop privileges; `user` is then one of
/// them. Where root runs the tests, they have the numbers that they have on the host. Others need subordinate ids, see
/// subuid(5), and newuidmap(1).
///
/// `time` stands for a time namespace of its own, which has the host's clocks unless `boottime` or `monotonic` say otherwise. They
/// imply it. The time of day is the same everywhere, see time_namespaces(7).
///
/// A limit that is written is a promise: where it can't be kept, the test fails and does not run. Limits take cgroups, see
/// cgroups(7): of version 2, which the user may divide (`systemd-run --user --scope -p Delegate=yes -- cargo test`), or of
/// version 1 for root. For `pids` without `uids`, ordinary users need none since Linux 5.14.
///
/// On a module, it isolates each test in it, and in modules in that. A test's own arguments are added: its words to those of the module,
/// while of options its own hold. What may be a test and can't be seen, such as the call of a macro, is an error:
///
/// ```test_harness
/// #[belljar::isolated(net, timeout = "30s")]
/// mod tests {
///     #[test]
///     fn binds_port_80() -> std::io::Result<()> {
///         std::net::TcpListener::bind("0.0.0.0:80").map(drop)
///     }
/// }
/// ```
///
/// On the `main` of a program, such as an example or a test with `harness = false`, the exit status is the verdict:
///
/// ```
/// #[belljar::isolated]
/// fn main() -> std::io::Result<()> {
///     std::net::TcpListener::bind("0.0.0.0:80").map(drop)
/// }
/// ```
///
/// It goes where `#[test]` would, or directly under it. In a module that is not for tests alone, write `#[cfg(test)]` above: a
/// dev-dependency is there for tests alone.
///
/// `#[test]`, a runtime's attribute, `#[rstest]`, `#[test_case]` and the like may stand above or below: each test is there once.
/// (What `macro_rules` puts above can't be seen, nor can anything before Rust 1.88. If that makes a test too, the harness has two, of
/// which one is run, and the end of the run says so: write `#[isolated]` first.) Other attributes work inside the sandbox if they stand
/// above, and outside if they stand below. `#[should_panic]`, `#[ignore]` and every return type of a test go with it:
///
/// ```test_harness
/// # use belljar::isolated;
/// #[isolated(net, timeout = "30s")]
/// #[should_panic(expected = "refused")]
/// fn nobody_listens() -> std::io::Result<()> {
///     std::net::TcpStream::connect("127.0.0.1:80").map(drop).map_err(|error| panic!("{error}"))
/// }
/// ```
pub use belljar_macros::isolated;

/// Runs once what tests start from: a function that fills a root.
///
/// ```test_harness
/// use belljar::{isolated, prepared};
///
/// #[prepared]
/// fn users() -> std::io::Result<()> {
///     std::fs::create_dir("/var/lib/users")?;
///     std::fs::write("/var/lib/users/ann", "1")
/// }
///
/// #[isolated(from = users)]
/// fn ann_is_removed() {
///     std::fs::remove_file("/var/lib/users/ann").unwrap(); // No other test notices.
/// }
///
/// #[isolated(from = users)]
/// fn ann_is_there() {
///     assert_eq!(std::fs::read_to_string("/var/lib/users/ann").unwrap(), "1");
/// }
/// ```
///
/// It runs in a sandbox of its own, when the first test that starts from it is about to run. The others wait. It takes what [`isolated`]
/// takes, `from` too: so preparations stack. It has a root of its own, so that `net` goes with `mount`. It takes no parameters, is not
/// `async`, and may return what a test may return.
///
/// A test that starts from it finds the files that it has left, with owners, modes, times, links and user attributes, in a copy that is
/// the test's own. What lies in `/dev`, `/proc` and `/sys` is not left, nor is any process, mount, interface or clock.
///
/// What makes the root (`root`, `uids`, `user = "host"`, `bind`, `tmpfs`, `mount`) is written at the preparation, and its tests have the
/// same. All else is each test's own, such as limits and the network.
///
/// If it fails, so do all tests that start from it, and if it is skipped, so are they. What it leaves lies in memory, until the test binary
/// ends. Under nextest, which runs each test in a process of its own, it lies below the target directory, and a later run removes it. Where it
/// can't lie there, each test runs the preparation itself, and says so.
///
/// Like copies, it takes overlayfs, and Linux 5.11 or later.
pub use belljar_macros::prepared;

/// Describes a sandbox for [`run`], by the arguments that [`isolated`] takes: a [`Spec`], which may be a `static` or a `const`.
///
/// ```
/// static SPEC: belljar::Spec = belljar::spec!(net, memory = "64MiB", timeout = "5s");
/// const COPY: belljar::Spec = belljar::spec!(root = "overlay");
/// ```
#[cfg(target_os = "linux")]
pub use belljar_macros::spec;

/// What the attribute's expansion names. Not for other use: it changes without notice.
#[doc(hidden)]
pub mod __private;
