//! What an empty isolated test costs beside the floor: the kernel calls alone, made in a bare loop, in the same run.
//!
//! `cargo bench --bench empty`. Both are measured in turn, and their ratio in each turn is what counts: machines are noisy,
//! and both meet the same noise.

#[path = "floor.rs"]
mod floor;

use std::process::Command;
use std::time::{Duration, Instant};
use std::{env, thread};

use belljar::__private::{Spec, Test, run};

const ROUNDS: usize = 40;
const PER_ROUND: u32 = 50;

const SPEC: Spec = Spec {
    net: true,
    mount: true,
    memory: None,
    pids: None,
    cpu: None,
    tmpfs: None,
    hostname: None,
    manifest_dir: option_env!("CARGO_MANIFEST_DIR"),
    target_tmpdir: None,
};
static EMPTY: Test = Test { name: "bench::empty", spec: SPEC, timeout: None, should_panic: false, body: || 0 };
/// With all limits that need a cgroup.
static LIMITED: Test = Test {
    name: "bench::limited",
    spec: Spec { memory: Some(1 << 30), pids: Some(1000), cpu: Some(100_000), ..SPEC },
    timeout: None,
    should_panic: false,
    body: || 0,
};
static SURVEY: Test = Test { name: "bench::survey", spec: SPEC, timeout: None, should_panic: false, body: take_survey };

fn take_survey() -> u8 {
    floor::Survey::take().print();
    0
}

fn main() {
    match env::args().nth(1).as_deref() {
        Some("survey") => return run(&SURVEY),
        Some("floor") => return serve_floor(),
        _ => {}
    }
    println!("an empty test with everything on, {ROUNDS} rounds of {PER_ROUND}; microseconds a test");
    let cores = thread::available_parallelism().map_or(1, usize::from);
    for threads in [1, cores] {
        compare(threads);
    }
}

/// Starts this program again.
fn this_program(argument: &str) -> Command {
    let mut command = Command::new(env::current_exe().expect("the path of this program"));
    command.arg(argument);
    command
}

/// Measures belljar on `threads` threads in turn with the floor in as many processes.
fn compare(threads: usize) {
    let (mut belljar, mut floor, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    let (mut limited, mut limited_ratios) = (Vec::new(), Vec::new());
    let has_limits = std::panic::catch_unwind(|| run(&LIMITED)).is_ok();
    let mut floors: Vec<_> = (0..threads).map(|_| Floor::start()).collect();
    for _ in 0..ROUNDS {
        let on_all_threads = |test: &'static Test| {
            thread::scope(|scope| {
                for _ in 0..threads {
                    scope.spawn(|| (0..PER_ROUND).for_each(|_| run(test)));
                }
            });
        };
        let ours = time(|| on_all_threads(&EMPTY));
        if has_limits {
            let with_limits = time(|| on_all_threads(&LIMITED));
            limited.push(with_limits);
            limited_ratios.push(with_limits.as_secs_f64() / ours.as_secs_f64());
        }
        let theirs = time(|| {
            floors.iter_mut().for_each(Floor::begin);
            floors.iter_mut().for_each(Floor::wait);
        });
        belljar.push(ours);
        floor.push(theirs);
        ratios.push(ours.as_secs_f64() / theirs.as_secs_f64());
    }
    let per_test = |time: &Duration| time.as_secs_f64() * 1e6 / f64::from(PER_ROUND) / threads as f64;
    println!("\n{threads} at once          min   median      p90");
    print_row("belljar", belljar.iter().map(per_test).collect());
    print_row("floor", floor.iter().map(per_test).collect());
    print_row("ratio", ratios);
    if has_limits {
        print_row("limits", limited.iter().map(per_test).collect());
        print_row("to belljar", limited_ratios);
    }
}

fn time(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}

fn print_row(name: &str, mut values: Vec<f64>) {
    values.sort_by(f64::total_cmp);
    let at = |share: f64| values[((values.len() - 1) as f64 * share).round() as usize];
    let digits = if values[0] < 10.0 { 2 } else { 0 };
    println!("{name:<12} {:>10.digits$} {:>8.digits$} {:>8.digits$}", at(0.0), at(0.5), at(0.9));
}

/// A process that runs the floor a round at a time: one of its own, because forking a process with threads costs more.
struct Floor(std::process::Child);

impl Floor {
    fn start() -> Self {
        let piped = std::process::Stdio::piped;
        Self(this_program("floor").stdin(piped()).stdout(piped()).spawn().expect("spawn"))
    }

    fn begin(&mut self) {
        use std::io::Write as _;
        self.0.stdin.as_mut().expect("piped").write_all(&[1]).expect("write");
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
    let survey = this_program("survey").output().expect("the survey runs");
    let calls = floor::Survey::parse(&String::from_utf8(survey.stdout).expect("UTF-8"));
    assert!(!calls.is_empty(), "{}", String::from_utf8_lossy(&survey.stderr));
    floor::make_one(&calls);
    while std::io::stdin().read_exact(&mut [0]).is_ok() {
        (0..PER_ROUND).for_each(|_| floor::make_one(&calls));
        std::io::stdout().write_all(&[1]).and_then(|()| std::io::stdout().flush()).expect("write");
    }
}
