//! Whoever is killed, at whatever moment: nothing is left, and whoever lives says what happened.

use std::fs;
use std::io::{Read as _, Seek as _};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, ExitStatus};
use std::thread;
use std::time::Duration;

use belljar::{isolated, prepared};
use belljar_tests::{body, describe, lone_body_command, marked, named, rounds, this_binary};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

belljar_tests::bodies!();

/// The tests that are killed: some do nothing, some start processes, some leave them.
macro_rules! victims {
    ($($name:ident)*) => {
        mod victims {
            $(#[belljar_tests::body]
            #[belljar::isolated]
            fn $name() {
                super::work();
            })*
        }
    };
}

victims!(a b c d e f g h i j k l m n o p);

/// Tests that start from what a preparation has left, which takes some milliseconds.
macro_rules! heirs {
    ($($name:ident)*) => {
        mod heirs {
            $(#[belljar_tests::body]
            #[belljar::isolated(from = crate::many_files)]
            fn $name() {
                super::use_up();
            })*
        }
    };
}

heirs!(a b c d e f g h i j k l m n o p);

const FILES: usize = 200;

#[prepared]
fn many_files() {
    fs::create_dir("/data").expect("mkdir");
    for number in 0..FILES {
        fs::write(format!("/data/{number}"), number.to_string()).expect("write");
    }
}

fn use_up() {
    for number in 0..FILES {
        assert_eq!(fs::read_to_string(format!("/data/{number}")).expect("half of it"), number.to_string());
    }
    fs::remove_dir_all("/data").expect("remove");
}

fn work() {
    let script = "sleep 1000 & setsid sleep 1000 & sleep 0.001";
    assert!(Command::new("sh").args(["-c", script]).status().expect("sh").success());
}

/// What runs the bodies that are meant by `names`, four at once.
fn bodies(names: &str) -> Command {
    let mut command = this_binary();
    command.args(["--exact", "--test-threads=4", "body", names]);
    command
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    TestBinary,
    Zygote,
    Template,
    Init,
    /// Which there is where there are cgroups.
    Sweeper,
}

/// Runs a test binary, kills `target` after `delay`, or as soon as it is there after that, and looks at what is left. Returns what was said, and
/// how the test binary ended, if that was not killed. Counts in `kills` if there was somebody to kill.
fn run_and_kill(
    mut command: Command,
    target: Target,
    delay: Duration,
    kills: &mut usize,
) -> (String, Option<ExitStatus>) {
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    let mark = belljar_tests::mark(&mut command);
    let mut file = tempfile::tempfile().expect("a temporary file");
    command.stdout(file.try_clone().expect("dup")).stderr(file.try_clone().expect("dup"));
    let mut binary = command.spawn().expect("spawn");
    thread::sleep(delay);
    let id = binary.id();
    let find = || match target {
        Target::TestBinary => Some(id),
        Target::Zygote => named(&mark, "belljar-zygote").first().copied(),
        Target::Template => named(&mark, "belljar-tmpl").first().copied(),
        Target::Init => named(&mark, "belljar-init").first().copied(),
        Target::Sweeper => named(&mark, "belljar-sweeper").first().copied(),
    };
    let mut killed = find();
    // Where the machine is slow, it may yet have to be made.
    while killed.is_none() && binary.try_wait().expect("wait").is_none() {
        killed = find();
    }
    *kills += usize::from(killed.is_some());
    if let Some(pid) = killed {
        // It may have ended by itself. No other process can have its number so soon.
        let _ = kill(Pid::from_raw(pid as i32), Signal::SIGKILL);
    }
    let status = binary.wait().expect("wait");
    // Without the test binary, nobody waits for the others to end.
    belljar_tests::wait_until(|| marked(&mark).is_empty());
    assert_eq!(fs::read_to_string("/proc/self/mountinfo").expect("mountinfo"), mounts);

    let mut output = String::new();
    file.rewind().and_then(|()| file.read_to_string(&mut output)).expect("read");
    let context = format!("{target:?} killed after {delay:?}, {}:\n{output}", describe(status));
    if target == Target::TestBinary {
        assert!(status.signal() == Some(Signal::SIGKILL as i32) || status.success(), "{context}");
        return (context, None);
    }
    (context, Some(status))
}

/// Runs the victims, kills `target` after `delay`, and looks at what is left and at what was said.
fn kill_after(target: Target, delay: Duration, kills: &mut usize) {
    let (context, Some(status)) = run_and_kill(bodies("victims::*"), target, delay, kills) else { return };
    let output = &context;
    let count = |end| output.lines().filter(|line| line.starts_with("test victims::") && line.ends_with(end)).count();
    let (passed, failed) = (count("ok"), count("FAILED"));
    let zygote = output.matches("the zygote of this test binary has been killed").count();
    // If the zygote has waited for it by then, nobody knows how it ended.
    let init = ["has been killed from outside", "is gone"]
        .map(|end| output.matches(&format!("the init of its sandbox {end}, and all")).count())
        .iter()
        .sum();
    match target {
        // All tests that had not ended fail, and each says why.
        Target::Zygote => assert_eq!((failed, init, failed + passed), (zygote, 0, 16), "{context}"),
        // All tests fail that it has made sandboxes for, or was about to. For the others there is another one.
        Target::Template => {
            let unborn = output.matches("its sandbox was never made. Either the process that makes").count();
            assert_eq!((failed, zygote), (init + unborn, 0), "{context}");
            assert_eq!(failed + passed, 16, "{context}");
        }
        // The others don't notice.
        _ => assert!(failed <= 1 && failed == init && zygote == 0, "{context}"),
    }
    assert_eq!(status.code(), Some(if failed == 0 { 0 } else { 101 }), "{context}");
}

/// Kills `target` at random moments of a run, which takes some ten milliseconds.
fn kill_at_random_moments(target: Target) {
    let mut random = fastrand::Rng::new();
    println!("seed {}", random.get_seed());
    let mut kills = 0;
    for _ in 0..rounds(20) {
        kill_after(target, Duration::from_micros(random.u64(0..40_000)), &mut kills);
    }
    // There is a sweeper where there are cgroups.
    assert!(kills > 0 || target == Target::Sweeper, "nobody was killed");
}

/// Whoever starts from what a preparation leaves starts from the whole, or fails and says why.
fn kill_with_a_preparation(target: Target) {
    let mut random = fastrand::Rng::new();
    println!("seed {}", random.get_seed());
    let mut kills = 0;
    for _ in 0..rounds(20) {
        let delay = Duration::from_micros(random.u64(0..60_000));
        let (output, Some(status)) = run_and_kill(bodies("heirs::*"), target, delay, &mut kills) else { continue };
        let count = |end| {
            let verdicts = output.lines().filter(|line| line.starts_with("test heirs::"));
            verdicts.filter(|line| line.ends_with(end)).count()
        };
        let (passed, failed) = (count("ok"), count("FAILED"));
        let told = output.lines().filter(|line| line.starts_with("belljar: `heirs::") && line.contains(" failed: "));
        assert_eq!((passed + failed, told.count()), (16, failed), "{output}");
        assert_eq!(status.code(), Some(if failed == 0 { 0 } else { 101 }), "{output}");
    }
    assert!(kills > 0, "nobody was killed");
}

#[test]
fn the_test_binary_of_a_preparation_is_killed() {
    kill_with_a_preparation(Target::TestBinary);
}

#[test]
fn the_zygote_of_a_preparation_is_killed() {
    kill_with_a_preparation(Target::Zygote);
}

#[test]
fn a_template_of_a_preparation_is_killed() {
    kill_with_a_preparation(Target::Template);
}

#[test]
fn the_init_of_a_preparation_is_killed() {
    kill_with_a_preparation(Target::Init);
}

#[test]
fn the_test_binary_is_killed() {
    kill_at_random_moments(Target::TestBinary);
}

#[test]
fn the_zygote_is_killed() {
    kill_at_random_moments(Target::Zygote);
}

#[test]
fn the_template_is_killed() {
    kill_at_random_moments(Target::Template);
}

#[test]
fn init_is_killed() {
    kill_at_random_moments(Target::Init);
}

#[test]
fn the_sweeper_is_killed() {
    kill_at_random_moments(Target::Sweeper);
}

/// Under nextest, a process is asked for one test by its name, and its template ends with its sandbox. How init has ended is known all the same.
#[test]
fn the_init_of_a_single_test_is_killed() {
    let mut random = fastrand::Rng::new();
    println!("seed {}", random.get_seed());
    let mut kills = 0;
    for _ in 0..rounds(20) {
        let delay = Duration::from_micros(random.u64(0..40_000));
        let lone = lone_body_command("victims::a");
        let (output, Some(status)) = run_and_kill(lone, Target::Init, delay, &mut kills) else { continue };
        let killed = output.matches("the init of its sandbox has been killed from outside, and all").count();
        assert_eq!(status.code(), Some(if killed == 0 { 0 } else { 101 }), "{output}");
        assert!(!output.contains("is gone"), "{output}");
    }
    assert!(kills > 0, "nobody was killed");
}

/// The twin: what these tests look for can be found.
#[test]
fn processes_are_found_while_they_live() {
    let mut command = this_binary();
    command.args(["--exact", "body", "hangs"]);
    let mark = belljar_tests::mark(&mut command);
    let binary = KilledOnDrop(command.stdout(std::process::Stdio::null()).spawn().expect("spawn"));
    let count = |name| named(&mark, name).len();
    let counts = || ["belljar-zygote", "belljar-tmpl", "belljar-init"].map(count);
    // The test binary and the test's process have other names.
    belljar_tests::wait_until(|| marked(&mark).len() == 5 + count("belljar-sweeper") && counts() == [1, 1, 1]);
    assert!(marked(&mark).contains(&binary.0.id()));
    drop(binary);
    belljar_tests::wait_until(|| marked(&mark).is_empty());
}

struct KilledOnDrop(std::process::Child);

impl Drop for KilledOnDrop {
    fn drop(&mut self) {
        let _ = self.0.kill().and_then(|()| self.0.wait());
    }
}

#[body]
#[isolated]
fn hangs() {
    belljar_tests::hang();
}
