//! `compare BINARIES BUNDLE ROUNDS DOCS`: measures an empty test in each way that is there, in turn, and writes `peers.md` and
//! `peers.svg` to the directory DOCS. The script `compare` calls it, and prepares what it needs:
//!
//! - BINARIES, a directory with the test binaries of this package;
//! - BUNDLE, an OCI bundle that runs the first test of the binary `plain`, which is the image `belljar-peers` of the podman whose
//!   root is the directory `podman` in it;
//! - in the environment, `MACHINE` and a version for each program.

#[path = "../benches/empty/floor.rs"]
mod floor;
mod plot;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

/// How many tests a test binary has.
const TESTS: u32 = 100;

/// The name of the first of them.
const FIRST: &str = "t0::t0::empty";

/// How long a command may take, which is many times what the slowest needs.
const TIMEOUT: Duration = Duration::from_secs(120);

/// In the words of a command, what stands for a name that no other has.
const UNIQUE: &str = "UNIQUE";

/// A way to run an empty test.
struct Way {
    name: String,
    /// What keeps the test from the machine.
    isolation: &'static str,
    kind: Kind,
    /// How many tests it runs when it is measured.
    count: u32,
}

enum Kind {
    /// A test binary, which runs them on threads.
    Harness(PathBuf),
    /// A command that runs them with `cargo nextest`.
    Nextest(&'static str),
    /// This command, once for each.
    Command(Vec<String>),
    /// What the kernel charges for the least that a test must have.
    Floor,
}

fn main() {
    let arguments: Vec<_> = env::args().skip(1).collect();
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["floor", count] => {
            let count: u32 = count.parse().expect("a number");
            (0..count).for_each(|_| floor::make_one());
        }
        [binaries, bundle, rounds, docs] => {
            let rounds = rounds.parse().expect("a number of rounds");
            compare(ways(Path::new(binaries), bundle), rounds, Path::new(docs));
        }
        _ => panic!("usage: compare BINARIES BUNDLE ROUNDS DOCS"),
    }
}

fn this_program(arguments: &[&str]) -> Command {
    let mut command = Command::new(env::current_exe().expect("the path of this program"));
    command.args(arguments);
    command
}

/// All ways, those with most isolation first: belljar, the floor, and the others.
fn ways(binaries: &Path, bundle: &str) -> Vec<Way> {
    let version = |program: &str| env::var(program).unwrap_or_default();
    let harness = |name: &str, isolation, binary: &str| Way {
        name: name.into(),
        isolation,
        kind: Kind::Harness(binaries.join(binary)),
        count: TESTS,
    };
    let nextest = |name: &str, isolation, binary| Way {
        name: format!("{name}cargo-nextest {}", version("NEXTEST")),
        isolation,
        kind: Kind::Nextest(binary),
        count: TESTS,
    };
    let command = |name: &str, version: &str, isolation, count, words: &str| Way {
        name: format!("{name} {}", env::var(version).unwrap_or_default()),
        isolation,
        kind: Kind::Command(words.split_whitespace().map(str::to_owned).collect()),
        count,
    };
    // Some show a /tmp of their own, where links may lie, but hardly a target directory.
    let plain = binaries.join("plain");
    let plain = format!("{} --exact {FIRST}", plain.canonicalize().unwrap_or(plain).display());
    let all = "all namespaces, root, network";
    let image = "namespaces but user, an image";
    let process = "a process";
    vec![
        harness("belljar", all, "isolated"),
        Way { name: "the floor".into(), isolation: all, kind: Kind::Floor, count: TESTS },
        nextest("belljar with ", all, "isolated"),
        command(
            "bubblewrap",
            "BWRAP",
            all,
            20,
            &format!("bwrap --unshare-all --ro-bind / / --proc /proc --dev /dev --tmpfs /run --tmpfs /tmp {plain}"),
        ),
        command(
            "unshare",
            "UNSHARE",
            "all namespaces, the host's root",
            20,
            &format!(
                "unshare --user --map-root-user --net --mount --pid --ipc --uts --cgroup --fork --mount-proc {plain}"
            ),
        ),
        command("crun", "CRUN", image, 20, &format!("crun --cgroup-manager=disabled run --bundle {bundle} {UNIQUE}")),
        command(
            "podman",
            "PODMAN",
            image,
            4,
            &format!(
                "podman --root {bundle}/podman --runroot {bundle}/podman-run run --rm --cgroups=disabled --network=none \
                 --log-driver=none --attach=stdout --ulimit=nofile=1024:1024 --ulimit=nproc=1024:1024 belljar-peers \
                 /plain --exact {FIRST}"
            ),
        ),
        command(
            "systemd-nspawn",
            "NSPAWN",
            image,
            4,
            &format!(
                "systemd-nspawn --quiet --private-network --machine={UNIQUE} --volatile=overlay \
                 --directory={bundle}/rootfs /plain --exact {FIRST}"
            ),
        ),
        harness("netsim 0.3.0", "user and net namespace of a thread", "in_netsim"),
        harness("test-fork 0.1.7", process, "forked_by_test_fork"),
        harness("rusty-fork 0.3.1", process, "forked_by_rusty_fork"),
        nextest("", process, "plain"),
        harness("libtest alone", "none", "plain"),
    ]
}

/// What was measured of one way.
struct Row {
    name: String,
    isolation: &'static str,
    /// The milliseconds that one more test costs: for each number of tests at once, a figure for each round.
    figures: Vec<Vec<f64>>,
    /// In how many measurements it failed, and how in the last of them.
    failures: (u32, String),
}

impl Row {
    fn is_measured(&self) -> bool {
        self.figures.iter().all(|figures| !figures.is_empty())
    }
}

/// Measures all `ways`, each `rounds` times in turn.
fn compare(ways: Vec<Way>, rounds: usize, docs: &Path) {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let threads = [1, cores];
    let mut rows: Vec<Row> = Vec::new();
    for way in &ways {
        // The first time, what it needs comes from the disk.
        let failures = way.cost_of_one(1).map_or_else(|why| (1, why), |_| (0, String::new()));
        let figures = vec![Vec::new(); threads.len()];
        rows.push(Row { name: way.name.clone(), isolation: way.isolation, figures, failures });
    }
    for round in 1..=rounds {
        eprintln!("round {round} of {rounds}");
        for (row, way) in rows.iter_mut().zip(&ways) {
            for (figures, threads) in row.figures.iter_mut().zip(threads) {
                match way.cost_of_one(threads) {
                    Ok(cost) => figures.push(cost.as_secs_f64() * 1e3),
                    Err(why) => row.failures = (row.failures.0 + 1, why),
                }
            }
        }
    }
    for row in rows.iter().take(2) {
        assert!(row.is_measured(), "{}: {}", row.name, row.failures.1);
    }
    fs::create_dir_all(docs).expect("a directory for the results");
    fs::write(docs.join("peers.md"), page(&rows, rounds, &threads)).expect("peers.md can be written");
    plot::write(&docs.join("peers.svg"), &rows, &threads).expect("peers.svg can be written");
}

impl Way {
    /// What one more test costs, with so many at once. What it takes to start and to run the first one is not counted.
    fn cost_of_one(&self, threads: usize) -> Result<Duration, String> {
        if matches!(self.kind, Kind::Command(_)) {
            return Ok(self.time(threads, self.count)? / self.count);
        }
        let (one, all) = (self.time(threads, 1)?, self.time(threads, self.count)?);
        Ok(all.saturating_sub(one) / (self.count - 1))
    }

    /// How long it takes to run `count` tests: all that there are, or the first.
    fn time(&self, threads: usize, count: u32) -> Result<Duration, String> {
        let start = Instant::now();
        match &self.kind {
            Kind::Harness(binary) => {
                let mut command = Command::new(binary);
                command.arg(format!("--test-threads={threads}"));
                if count == 1 {
                    command.args(["--exact", FIRST]);
                }
                check(command, &format!("{count} passed"))?;
            }
            Kind::Nextest(binary) => {
                let mut command = Command::new("cargo");
                command.args(["nextest", "run", "--offline", "--test", binary, "--test-threads", &threads.to_string()]);
                if count == 1 {
                    command.args(["--", "--exact", FIRST]);
                }
                check(command, &format!("{count} passed"))?;
            }
            Kind::Command(words) => {
                let run_some = |count| {
                    let run_one = || {
                        static RUNS: AtomicU32 = AtomicU32::new(0);
                        let unique = format!("belljar-{}-{}", std::process::id(), RUNS.fetch_add(1, Ordering::Relaxed));
                        let words: Vec<_> = words.iter().map(|word| word.replace(UNIQUE, &unique)).collect();
                        let mut command = Command::new(&words[0]);
                        command.args(&words[1..]);
                        check(command, "1 passed")
                    };
                    (0..count).try_for_each(|_| run_one())
                };
                run_on(threads, count, run_some)?;
            }
            Kind::Floor => {
                let run_some = |count: u32| check(this_program(&["floor", &count.to_string()]), "");
                run_on(threads, count, run_some)?;
            }
        }
        Ok(start.elapsed())
    }
}

/// Divides `count` tests among threads.
fn run_on(threads: usize, count: u32, run_some: impl Fn(u32) -> Result<(), String> + Sync) -> Result<(), String> {
    let threads = (threads as u32).min(count);
    thread::scope(|scope| {
        let part = |thread| count / threads + u32::from(thread < count % threads);
        let running: Vec<_> = (0..threads)
            .map(|thread| {
                scope.spawn({
                    let run_some = &run_some;
                    move || run_some(part(thread))
                })
            })
            .collect();
        running.into_iter().try_for_each(|running| running.join().expect("no panic"))
    })
}

/// Runs `command`, which must succeed and print this, and end in time: some of them hang now and then.
fn check(command: Command, expected: &str) -> Result<(), String> {
    let mut limited = Command::new("timeout");
    limited.args(["--signal=KILL", &TIMEOUT.as_secs().to_string()]).arg(command.get_program()).args(command.get_args());
    let start = Instant::now();
    let output = limited.stdin(Stdio::null()).output().map_err(|error| error.to_string())?;
    if start.elapsed() >= TIMEOUT {
        return Err(format!("it did not end within {} seconds", TIMEOUT.as_secs()));
    }
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    match output.status.success() && text.contains(expected) {
        true => Ok(()),
        false => {
            Err(text.lines().find(|line| !line.trim().is_empty()).unwrap_or("it fails in silence").trim().to_owned())
        }
    }
}

/// The least, the median, and what nine of ten do not exceed.
fn quantiles(figures: &[f64]) -> [f64; 3] {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    [0.0, 0.5, 0.9].map(|share| sorted[((sorted.len() - 1) as f64 * share).round() as usize])
}

/// The results as a page.
fn page(rows: &[Row], rounds: usize, threads: &[usize]) -> String {
    let mut page = format!(
        "<!-- Written by tests/peers/compare. -->\n\
         # What one more empty test costs\n\n\
         {}. Milliseconds a test, {rounds} rounds, in each of which all were measured in turn: the median, and in parentheses \
         the least and what nine of ten rounds did not exceed. What a command needs to start is not counted where it runs many \
         tests.\n\n\
         ![The same as a plot](peers.svg)\n\n| | isolation |",
        env::var("MACHINE").unwrap_or_default()
    );
    threads.iter().for_each(|threads| page += &format!(" {threads} at once |"));
    let mut notes = String::new();
    page += "\n| --- | --- |";
    threads.iter().for_each(|_| page += " --- |");
    for row in rows {
        let Row { name, isolation, figures, failures: (failures, why) } = row;
        page += &format!("\n| {name} | {isolation} |");
        if !row.is_measured() {
            page += &format!(" not run here: {} |", why.replace('|', "\\|"));
            threads.iter().skip(1).for_each(|_| page += " |");
            continue;
        }
        for figures in figures {
            let [least, median, most] = quantiles(figures).map(|figure| format!("{figure:.2}"));
            page += &format!(" {median} ({least}–{most}) |");
        }
        if *failures > 0 {
            notes += &format!("\n{name} failed {failures} times, which are not counted: {why}.\n");
        }
    }
    format!("{page}\n{notes}")
}
