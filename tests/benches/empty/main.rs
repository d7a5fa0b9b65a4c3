//! What an empty isolated test costs beside the floor: the least that a test must have, made in a bare loop, in the same run.
//!
//! `cargo bench --bench empty`. Both are measured in turn, and their ratio in each turn is what counts: machines are noisy,
//! and both meet the same noise. CPU time is noisy least. With an argument, it measures something else in place of that:
//!
//! - `words`: what each word and each limit costs, at 1, 2, 4 and 16 threads;
//! - `lone`: what a process costs that runs one test, as nextest starts it, beside one that runs none;
//! - `growth`: what a test costs as the tenth and as the ten-thousandth, and what the processes then hold;
//! - `neighbour`: what a test costs beside one that holds 500 MiB;
//! - `statics`: what it costs in a test binary with 500 MiB of statics that are used;
//! - `prepared`: what it costs to start from what a preparation has left, a file or a gigabyte of files;
//! - `lab`: how long it takes until a network laboratory is up, beside the same by `ip` commands; and what it does to traffic: first connections
//!   on a busy machine, a delay, rates, and as much as passes;
//! - `faults`: what a system call costs that is watched for faults, or fails;
//! - `many`: what it costs in a test binary of 10,000 tests, run by libtest.

mod cost;
mod faults;
mod floor;
mod lab;
mod traffic;

use std::path::PathBuf;
use std::process::Command;
use std::sync::Mutex;
use std::time::{Duration, Instant};
use std::{env, fs, io, process, thread};

use belljar::__private::{Ids, Prepared, Root, Spec, Test, run};
use belljar::prepared;

use cost::{Cost, print_row};

const ROUNDS: usize = 20;
const PER_ROUND: u8 = 50;

/// As many as make the sandboxes count for little that a round finds prepared, and leaves for others to find.
const PER_LONG_ROUND: u8 = 200;

const SPEC: Spec = Spec { manifest_dir: option_env!("CARGO_MANIFEST_DIR"), ..Spec::PLAIN };
static EMPTY: Test = Test { name: "bench::empty", spec: SPEC, ..Test::PLAIN };
/// With all limits that need a cgroup.
static LIMITED: Test = Test {
    name: "bench::limited",
    spec: Spec { memory: Some(1 << 30), pids: Some(1000), cpu: Some(100_000), ..SPEC },
    ..Test::PLAIN
};

fn main() {
    match env::args().nth(1).as_deref() {
        Some("floor") => return serve_floor(),
        Some("words") => return compare_words(),
        Some("lone") => return compare_processes(),
        Some("--once") => return run_one(),
        Some("growth") => return compare_counts(),
        Some("count") => return count(),
        Some("neighbour") => return compare_neighbours(),
        Some("statics") => return compare_statics(),
        Some("prepared") => return compare_preparations(),
        Some("lab") => {
            lab::compare();
            return traffic::measure();
        }
        Some("faults") => return faults::compare(),
        Some("many") => return compare_filters(),
        _ => {}
    }
    println!("an empty test with everything on, {ROUNDS} rounds of {PER_LONG_ROUND}; microseconds a test");
    println!("CPU time is that of all processes in the mean, without the kernel's workers");
    let cores = thread::available_parallelism().map_or(1, usize::from);
    for threads in [1, cores] {
        compare(threads);
    }
}

/// Runs `test` so many times in a row on each of `threads` threads.
fn run_on(threads: usize, times: impl Into<u32>, test: &'static Test) {
    let times = times.into();
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| (0..times).for_each(|_| run(test)));
        }
    });
}

/// A test that asks for this.
const fn asking(spec: Spec) -> Test {
    Test { name: "bench::asking", spec, ..Test::PLAIN }
}

const PLAIN: Spec = Spec { net: false, mount: false, ..SPEC };

static WORDS: [(&str, Test); 11] = [
    ("#[isolated]", asking(SPEC)),
    ("net", asking(Spec { net: true, ..PLAIN })),
    ("mount", asking(Spec { mount: true, ..PLAIN })),
    ("uts", asking(PLAIN)),
    ("memory", asking(Spec { memory: Some(1 << 30), ..SPEC })),
    ("pids", asking(Spec { pids: Some(1000), ..SPEC })),
    ("cpu", asking(Spec { cpu: Some(100_000), ..SPEC })),
    ("overlay", asking(Spec { root: Root::Overlay, ..SPEC })),
    ("uids", asking(Spec { ids: Ids::Range(65536), ..SPEC })),
    ("host", asking(Spec { ids: Ids::Host, ..SPEC })),
    ("all limits", asking(Spec { memory: Some(1 << 30), pids: Some(1000), cpu: Some(100_000), ..SPEC })),
];

/// Measures what tests cost that ask for different things, in turn with the floor of one that asks for nothing.
fn compare_words() {
    const ROUNDS: usize = 15;
    println!("empty tests by what they ask for, {ROUNDS} rounds of {PER_ROUND} a thread; microseconds a test");
    let can_run = |test: &'static Test| std::panic::catch_unwind(|| run(test)).is_ok();
    let measured: Vec<_> = WORDS.iter().filter(|(_, test)| can_run(test)).collect();
    for threads in [1, 2, 4, 16] {
        let mut floors: Vec<_> = (0..threads).map(|_| Floor::start()).collect();
        let (mut costs, mut floor) = (Vec::new(), Cost::default());
        costs.resize_with(measured.len(), Cost::default);
        let tests = f64::from(PER_ROUND) * threads as f64;
        for _ in 0..ROUNDS {
            for ((_, test), cost) in measured.iter().zip(&mut costs) {
                cost.measure(tests, || run_on(threads, PER_ROUND, test));
            }
            floor.measure(tests, || run_floors(&mut floors, PER_ROUND));
        }
        Cost::print_head(&format!("{threads} at once"));
        floor.print("floor");
        for ((name, _), cost) in measured.iter().zip(&costs) {
            cost.print(name);
        }
    }
}

/// Runs each of the floors so many times, all at once.
fn run_floors(floors: &mut [Floor], times: u8) {
    floors.iter_mut().for_each(|floor| floor.begin(times));
    floors.iter_mut().for_each(Floor::wait);
}

/// Measures processes in turn that run no test, and one.
fn compare_processes() {
    const ROUNDS: usize = 40;
    const NAMES: [&str; 6] = ["none", "#[isolated]", "net", "uts", "all limits", "overlay"];
    let start = |name: &str| {
        // As nextest does. The first argument is an option, so that there is one name, and belljar sees a single test.
        let output = this_program("--once").args([name, "--exact"]).env("NEXTEST", "1").output().expect("it runs");
        output.status.success()
    };
    let able: Vec<_> = NAMES.into_iter().filter(|name| start(name)).collect();
    let mut costs = Vec::new();
    costs.resize_with(able.len(), Cost::default);
    for _ in 0..ROUNDS {
        for (name, cost) in able.iter().zip(&mut costs) {
            cost.measure(1, || {
                start(name);
            });
        }
    }
    println!("processes of one test, {ROUNDS} rounds; microseconds a process");
    Cost::print_head("");
    able.iter().zip(&costs).for_each(|(name, cost)| cost.print(name));
}

/// Runs the test of this name, if there is one.
fn run_one() {
    let name = env::args().nth(2).expect("a name");
    WORDS.iter().filter(|(known, _)| *known == name).for_each(|(_, test)| run(test));
}

/// Measures what a test costs in processes that run few and many.
fn compare_counts() {
    println!("{:<8} {:>12} {:>12} {:>10} {:>10}", "tests", "us a test", "descriptors", "KiB", "zygote KiB");
    for count in ["10", "100", "1000", "10000"] {
        let output = this_program("count").arg(count).output().expect("it runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        print!("{count:<8} {}", String::from_utf8_lossy(&output.stdout));
    }
}

/// Runs so many tests as the argument says, and prints a row of what that took, and what is held at the end.
fn count() {
    let count: u32 = env::args().nth(2).and_then(|count| count.parse().ok()).expect("a number");
    if env::args().nth(3).is_some() {
        STATICS.lock().expect("nobody panicked").iter_mut().step_by(4096).for_each(|byte| *byte = 1);
    }
    let elapsed = time(|| run_on(1, count, &EMPTY));
    let resident = |pid: u32| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
        line.split_whitespace().next().unwrap_or("?").to_owned()
    };
    let own = process::id();
    let children = fs::read_to_string(format!("/proc/{own}/task/{own}/children")).unwrap_or_default();
    let zygote = children.split_whitespace().next().and_then(|pid| pid.parse().ok()).map_or("?".into(), resident);
    let descriptors = fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
    let per_test = elapsed.as_secs_f64() * 1e6 / f64::from(count);
    println!("{per_test:>12.0} {descriptors:>12} {:>10} {zygote:>10}", resident(own));
}

/// Measures tests in turn with and without memory that another test of the same binary holds meanwhile.
fn compare_neighbours() {
    let (mut alone, mut beside) = (Cost::default(), Cost::default());
    for _ in 0..ROUNDS {
        alone.measure(PER_ROUND, || run_on(1, PER_ROUND, &EMPTY));
        let memory = belljar_tests::allocate(500);
        beside.measure(PER_ROUND, || run_on(1, PER_ROUND, &EMPTY));
        drop(memory);
    }
    println!("empty tests, {ROUNDS} rounds of {PER_ROUND}; microseconds a test");
    Cost::print_head("");
    alone.print("alone");
    beside.print("beside");
    beside.print_ratio("ratio", &alone);
}

/// Bytes and no atomics, over each of which the compiler would take its time.
static STATICS: Mutex<[u8; 500 * belljar_tests::MIB]> = Mutex::new([0; 500 * belljar_tests::MIB]);

/// Measures tests in turn in processes that use large statics and in others.
fn compare_statics() {
    println!("{:<8} {:>12} {:>12} {:>10} {:>10}", "statics", "us a test", "descriptors", "KiB", "zygote KiB");
    for _ in 0..5 {
        for statics in [None, Some("used")] {
            let output = this_program("count").arg("1000").args(statics).output().expect("it runs");
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            print!("{:<8} {}", statics.unwrap_or("unused"), String::from_utf8_lossy(&output.stdout));
        }
    }
}

#[prepared]
fn one_file() -> io::Result<()> {
    fs::write("/file", "")
}

#[prepared]
fn one_gigabyte() -> io::Result<()> {
    (0..1024).try_for_each(|number| fs::write(format!("/var/lib/{number}"), vec![7; belljar_tests::MIB]))
}

/// Measures empty tests in turn that start from nothing, and from what preparations have left.
fn compare_preparations() {
    static TESTS: [(&str, Test); 3] = [
        ("from nothing", asking(SPEC)),
        ("from a file", asking(SPEC.starting_from(<one_file as Prepared>::TEST))),
        ("from a GiB", asking(SPEC.starting_from(<one_gigabyte as Prepared>::TEST))),
    ];
    println!("empty tests by what they start from, {ROUNDS} rounds of {PER_ROUND} a thread; microseconds a test");
    for threads in [1, thread::available_parallelism().map_or(1, usize::from)] {
        // The preparations run before.
        TESTS.iter().for_each(|(_, test)| run(test));
        let mut costs = TESTS.each_ref().map(|_| Cost::default());
        let tests = f64::from(PER_ROUND) * threads as f64;
        for _ in 0..ROUNDS {
            for ((_, test), cost) in TESTS.iter().zip(&mut costs) {
                cost.measure(tests, || run_on(threads, PER_ROUND, test));
            }
        }
        Cost::print_head(&format!("{threads} at once"));
        for ((name, _), cost) in TESTS.iter().zip(&costs) {
            cost.print(name);
        }
        for ((name, _), cost) in TESTS.iter().zip(&costs).skip(1) {
            cost.print_ratio(&format!("ratio {}", &name[5..]), &costs[0]);
        }
    }
}

/// Measures a test binary of 10,000 tests, of which it runs some: 5,000 or ten that are isolated, or 5,000 that are not; in turn with this
/// program, which runs one test 5,000 times.
fn compare_filters() {
    const ROUNDS: usize = 5;
    const FILTERS: [(&str, u32); 3] = [("isolated::", 5000), ("isolated::m0::t0::t0::", 10), ("plain::", 5000)];
    let binary = build_many();
    println!("a test binary of 10,000 tests, {ROUNDS} rounds; microseconds a test");
    println!("{:<24} {:<12} {:>10} {:>8} {:>8}", "filter", "tests", "min", "median", "p90");
    let (mut times, mut loops) = (FILTERS.map(|_| Vec::new()), Vec::new());
    for _ in 0..ROUNDS {
        for ((filter, count), times) in FILTERS.iter().zip(&mut times) {
            let (elapsed, output) = run_whole(Command::new(&binary).args([*filter, "--quiet", "--test-threads=1"]));
            assert!(output.contains(&format!("ok. {count} passed")), "{output}");
            times.push(elapsed.as_secs_f64() * 1e6 / f64::from(*count));
        }
        loops.push(run_whole(this_program("count").arg("5000")).0.as_secs_f64() * 1e6 / 5000.0);
    }
    for ((filter, count), times) in FILTERS.iter().zip(times) {
        print!("{filter:<24} ");
        print_row(&count.to_string(), times, &[]);
    }
    print!("{:<24} ", "none, in a loop");
    print_row("5000", loops, &[]);
}

/// Runs `command` to its end. Returns how long it took, and what it wrote.
fn run_whole(command: &mut Command) -> (Duration, String) {
    let start = Instant::now();
    let output = command.output().expect("it runs");
    let elapsed = start.elapsed();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    (elapsed, String::from_utf8(output.stdout).expect("UTF-8"))
}

/// Builds the test binary of 10,000 tests, and returns its path.
fn build_many() -> PathBuf {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(["test", "--release", "-p", "belljar-tests", "--test", "many", "--no-run", "--message-format=json"]);
    let output = command.stderr(process::Stdio::inherit()).output().expect("cargo runs");
    let messages = String::from_utf8(output.stdout).expect("UTF-8");
    let message = |line| serde_json::from_str::<serde_json::Value>(line).ok();
    let executable = messages.lines().filter_map(message).find_map(|message| {
        message["executable"].as_str().filter(|_| message["target"]["name"] == "many").map(PathBuf::from)
    });
    executable.expect("it is built")
}

/// Starts this program again.
fn this_program(argument: &str) -> Command {
    let mut command = Command::new(env::current_exe().expect("the path of this program"));
    command.arg(argument);
    command
}

/// Measures belljar on `threads` threads in turn with the floor in as many processes.
fn compare(threads: usize) {
    let (mut belljar, mut limited, mut floor) = (Cost::default(), Cost::default(), Cost::default());
    let has_limits = std::panic::catch_unwind(|| run(&LIMITED)).is_ok();
    let mut floors: Vec<_> = (0..threads).map(|_| Floor::start()).collect();
    let tests = f64::from(PER_LONG_ROUND) * threads as f64;
    for _ in 0..ROUNDS {
        belljar.measure(tests, || run_on(threads, PER_LONG_ROUND, &EMPTY));
        if has_limits {
            limited.measure(tests, || run_on(threads, PER_LONG_ROUND, &LIMITED));
        }
        floor.measure(tests, || run_floors(&mut floors, PER_LONG_ROUND));
    }
    Cost::print_head(&format!("{threads} at once"));
    belljar.print("belljar");
    floor.print("floor");
    belljar.print_ratio("ratio", &floor);
    if has_limits {
        limited.print("limits");
        limited.print_ratio("to belljar", &belljar);
    }
}

fn time(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}

/// A process that runs the floor a round at a time: one of its own, because forking a process with threads costs more.
struct Floor(process::Child);

impl Floor {
    fn start() -> Self {
        let piped = process::Stdio::piped;
        Self(this_program("floor").stdin(piped()).stdout(piped()).spawn().expect("spawn"))
    }

    fn begin(&mut self, times: u8) {
        use std::io::Write as _;
        self.0.stdin.as_mut().expect("piped").write_all(&[times]).expect("write");
    }

    fn wait(&mut self) {
        use std::io::Read as _;
        self.0.stdout.as_mut().expect("piped").read_exact(&mut [0]).expect("read");
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

fn serve_floor() {
    use std::io::{Read as _, Write as _};
    floor::make_one();
    let mut times = [0];
    while io::stdin().read_exact(&mut times).is_ok() {
        (0..times[0]).for_each(|_| floor::make_one());
        io::stdout().write_all(&[1]).and_then(|()| io::stdout().flush()).expect("write");
    }
}
