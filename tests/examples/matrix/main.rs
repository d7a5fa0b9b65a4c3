//! Runs belljar in places where it may fare ill, as root and as an ordinary user, and checks what it says there. For `lab/matrix`.
//!
//! `matrix run SITE CELL [WORD...]` runs the tests of `cell` in each place of SITE whose name has these words, and prints a line of JSON
//! for each. It fails if what must come of one does not. Needs root.
//!
//! `matrix table [FILE...]` makes a page of such lines.

mod expected;
mod made;
mod places;

use std::collections::BTreeMap;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;
use std::{env, fs, process, thread};

use belljar_tests::{Run, descendants, linux_version, run};
use nix::sys::prctl::set_dumpable;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, gethostname, setgid, setgroups, setuid};
use serde_json::{Value, json};

use expected::{Applied, Expected, Given, Refusal, User};
use made::{IMAGE, ROOM};
use places::{PLACES, Place};

/// How long a run may take, on the slowest machine.
const LIMIT: Duration = Duration::from_secs(60);

/// What a body writes in the sandbox that it asked for.
const ISOLATED: &str = "the body is isolated";

/// The first word of a line that is for `table`.
const ROW: &str = "row ";

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["run", site, cell, words @ ..] => run_all(site, cell, words),
        ["table", files @ ..] => print_table(files),
        ["become", number, user, remedy, flags, cell, rest @ ..] => {
            become_cell(number, user, remedy, flags, cell, rest)
        }
        _ => {
            eprintln!("usage: matrix run SITE CELL [WORD...], or matrix table [FILE...]");
            ExitCode::from(2)
        }
    }
}

impl User {
    const fn name(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::Ordinary => "ordinary",
        }
    }
}

/// A place for one user on this machine.
struct Cell<'c> {
    number: usize,
    user: User,
    program: &'c str,
}

fn run_all(site: &str, cell: &str, words: &[&str]) -> ExitCode {
    let known = ["here", "guest", "initramfs", "engines"].into_iter().find(|known| *known == site);
    let Some(site) = known else {
        eprintln!("there is no site {site}");
        return ExitCode::from(2);
    };
    let host_name = gethostname().expect("the host name");
    let mut wrong = 0;
    for (number, place) in PLACES.iter().enumerate() {
        if !place.sites.contains(&site) || !words.iter().all(|word| place.name.contains(word)) {
            continue;
        }
        for user in place.users {
            let given = Given { user: *user, site, linux: linux_version() };
            let row = try_out(&Cell { number, user: *user, program: cell }, place, &given);
            wrong += usize::from(row["wrong"].is_string());
            println!("{ROW}{row}");
        }
    }
    assert_eq!(gethostname().expect("the host name"), host_name, "a place has changed the host");
    if wrong == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What came of a place. If it is not what is expected, `wrong` says so.
fn try_out(cell: &Cell<'_>, place: &Place, given: &Given) -> Value {
    let (major, minor) = given.linux;
    let mut row = json!({
        "place": place.name, "user": cell.user.name(), "linux": format!("{major}.{minor}"), "site": given.site,
    });
    let result = match (place.expected)(given) {
        Expected::NotTried(why) => {
            row["not_tried"] = json!(why);
            Ok(())
        }
        Expected::Works => cell.observe(place, "", "").and_then(|seen| match seen {
            Seen::Works => Ok(()),
            Seen::Refused(page) => Err(format!("it does not work: {page:?}")),
        }),
        Expected::Refused(refusal) => must_refuse(cell, place, &refusal, &mut row),
    };
    if let Err(wrong) = result {
        row["wrong"] = json!(wrong);
    }
    row
}

/// What a page says, by the name of the part.
type Page = BTreeMap<String, String>;

fn must_refuse(cell: &Cell<'_>, place: &Place, refusal: &Refusal, row: &mut Value) -> Result<(), String> {
    let Seen::Refused(page) = cell.observe(place, "", "")? else { return Err("it works".to_owned()) };
    for part in ["step", "error", "cause", "seen", "remedy"] {
        row[part] = json!(page.get(part));
    }
    let Refusal { step, error, cause, applied, .. } = *refusal;
    let is_as_expected = |part: &str, expected: &str| match part {
        "step" => page.get(part).is_some_and(|text| text.starts_with(expected)),
        _ => page.get(part).is_some_and(|text| text == expected),
    };
    for (part, expected) in [("step", step), ("error", error), ("cause", cause), ("remedy", refusal.remedy)] {
        if !is_as_expected(part, expected) {
            return Err(format!("the {part} is not {expected:?}"));
        }
    }
    let remedy = page["remedy"].as_str();
    match applied {
        Applied::As(other) => row["applied"] = json!(format!("as in the place “{other}”")),
        Applied::Not(why) => row["applied"] = json!(format!("not tried: {why}")),
        Applied::Command | Applied::Flags => {
            let flags = if matches!(applied, Applied::Flags) { flags_in(remedy) } else { String::new() };
            let command = if flags.is_empty() { remedy } else { "" };
            match cell.observe(place, command, &flags)? {
                Seen::Works => row["applied"] = json!("works"),
                Seen::Refused(page) => return Err(format!("the remedy does not help: {page:?}")),
            }
        }
    }
    Ok(())
}

/// The flags that a remedy has for an engine.
fn flags_in(remedy: &str) -> String {
    let end = remedy.find(", or").unwrap_or(remedy.len());
    remedy[..end].split(' ').skip_while(|word| !word.starts_with("--")).collect::<Vec<_>>().join(" ")
}

/// What was seen in a place.
enum Seen {
    Works,
    Refused(Page),
}

impl Cell<'_> {
    /// Runs the test of the place, and has the doctor look at it. Fails if one of them hangs, leaves something, dies, or says what is
    /// not so, and if a body ran in less than a sandbox.
    fn observe(&self, place: &Place, remedy: &str, flags: &str) -> Result<Seen, String> {
        let test = place.test;
        // In order, on one thread: limits may allow no more.
        let arguments = ["--exact", "outside", test, "--show-output", "--test-threads=1"];
        let Run { output, status, .. } = self.run(remedy, flags, &arguments, false)?;
        // The twin: outside of the sandbox, the place itself is not taken for one.
        if !output.contains("test outside ... ok") {
            return Err(format!("outside, all is taken for isolated, or no test runs: {output}"));
        }
        let seen = match status.code() {
            Some(0) if output.contains("2 passed; 0 failed") && output.contains(ISOLATED) => Seen::Works,
            Some(101) if output.contains("1 passed; 1 failed") && !output.contains("the body") => {
                Seen::Refused(page(&output))
            }
            _ => return Err(format!("{status:?}: {output}")),
        };
        // A limit has a row of its own there.
        if test == "sandbox" {
            let Run { output, status, .. } = self.run(remedy, flags, &[], true)?;
            // It also says that it has run no test.
            let json = output.lines().find(|line| line.starts_with('{')).unwrap_or_default();
            let told: Value = serde_json::from_str(json).map_err(|error| format!("the doctor: {error}: {output}"))?;
            let (first, works) = (&told["found"][0], matches!(seen, Seen::Works));
            let says_the_same = match &seen {
                Seen::Works => first["works"] == true,
                Seen::Refused(page) => first["works"] == false && first["cause"] == *page["cause"],
            };
            if !says_the_same || told["is_well"] != works || status.code() != Some(i32::from(!works)) {
                return Err(format!("the doctor says something else: {status:?}: {output}"));
            }
        }
        Ok(seen)
    }

    fn run(&self, remedy: &str, flags: &str, arguments: &[&str], doctor: bool) -> Result<Run, String> {
        let mut command = Command::new(env::current_exe().expect("the path of this binary"));
        command.args(["become", &self.number.to_string(), self.user.name(), remedy, flags, self.program]);
        command.args(arguments).env_clear().env("RUST_BACKTRACE", "0").env("HOME", format!("{ROOM}/home"));
        for variable in ["PATH", "DOCKER_HOST", IMAGE] {
            command.envs(env::var_os(variable).map(|value| (variable, value)));
        }
        if doctor {
            command.env("BELLJAR_DOCTOR", "json");
        }
        let (done, end) = channel::<()>();
        let watch = thread::spawn(move || {
            let hangs = end.recv_timeout(LIMIT) == Err(RecvTimeoutError::Timeout);
            if hangs {
                for pid in descendants(process::id()) {
                    let _ = kill(Pid::from_raw(pid as i32), Signal::SIGKILL);
                }
            }
            hangs
        });
        let run = run(&mut command);
        drop(done);
        match watch.join() {
            // Podman keeps a process of its own.
            Ok(false) if run.left.is_empty() || PLACES[self.number].program[0] == "podman" => {
                run.kill_left();
                Ok(run)
            }
            Ok(false) => Err(format!("it left {:?}: {}", run.left, run.output)),
            _ => Err(format!("it hangs: {}", run.output)),
        }
    }
}

/// The page in what a test has written.
fn page(output: &str) -> Page {
    let part = |line: &str| {
        let (name, text) = line.strip_prefix("  ")?.split_once(':')?;
        ["step", "error", "cause", "seen", "remedy"].contains(&name).then(|| (name.to_owned(), text.trim().to_owned()))
    };
    output.lines().filter_map(part).collect()
}

/// Makes a place of this process, and runs the program in it.
fn become_cell(number: &str, user: &str, remedy: &str, flags: &str, cell: &str, rest: &[&str]) -> ExitCode {
    let place = &PLACES[number.parse::<usize>().expect("a number")];
    made::prepare(Path::new(cell));
    (place.before)();
    if !remedy.is_empty() {
        made::apply(remedy);
    }
    let uid = if user == User::Root.name() { 0 } else { made::ordinary() };
    if uid != 0 && !place.program.contains(&"USER") {
        setgroups(&[]).and_then(|()| setgid(uid.into())).and_then(|()| setuid(uid.into())).expect("setuid");
        // A process that has changed its user is closed to the user.
        set_dumpable(true).expect("prctl");
    }
    (place.after)();
    let uid = uid.to_string();
    let words = place.program.iter().flat_map(|word| match *word {
        "USER" => vec![uid.as_str()],
        "FLAGS" => flags.split_whitespace().collect(),
        word => vec![word],
    });
    let words: Vec<&str> = words.chain(rest.iter().copied()).collect();
    let error = Command::new(words[0]).args(&words[1..]).exec();
    eprintln!("{}: {error}", words[0]);
    ExitCode::from(127)
}

// ---- The page ----

fn print_table(files: &[&str]) -> ExitCode {
    let text: Vec<String> = files.iter().map(|file| fs::read_to_string(file).expect("a file with rows")).collect();
    let lines = text.iter().flat_map(|text| text.lines()).filter_map(|line| line.strip_prefix(ROW));
    let rows: Vec<Value> = lines.map(|line| serde_json::from_str(line).expect("a row")).collect();
    print!("{}", include_str!("../../lab/hosts.md"));
    for place in PLACES {
        // What is the same on several kernels and for both users stands there once.
        let mut said: Vec<(String, Vec<String>)> = Vec::new();
        for row in rows.iter().filter(|row| row["place"] == place.name) {
            let cells = cells(row);
            let who = format!("{} on {}", text_of(&row["user"]), text_of(&row["linux"]));
            match said.iter_mut().find(|(known, _)| *known == cells) {
                Some((_, all)) => all.push(who),
                None => said.push((cells, vec![who])),
            }
        }
        for (cells, who) in said {
            println!("| {} | {} | {cells} |", place.name, who_of(&who));
        }
    }
    let count = |key: &str| rows.iter().filter(|row| row[key].is_string()).count();
    println!(
        "\n{} combinations of a place, a user and a kernel: {} work, {} say why not, {} were not tried.",
        rows.len(),
        rows.len() - count("cause") - count("not_tried"),
        count("cause"),
        count("not_tried")
    );
    ExitCode::SUCCESS
}

fn text_of(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// What came of it, what is to be done, and whether that helps.
fn cells(row: &Value) -> String {
    match (row["cause"].as_str(), row["not_tried"].as_str()) {
        (None, None) => "works | |".to_owned(),
        (_, Some(why)) => format!("not tried: {why} | |"),
        (Some(cause), _) => {
            format!("{cause} | {} | {}", escaped(text_of(&row["remedy"])), text_of(&row["applied"]))
        }
    }
}

fn escaped(text: &str) -> String {
    text.replace('|', "\\|").replace('<', "&lt;")
}

/// Users with their kernels, in short.
fn who_of(who: &[String]) -> String {
    let mut kernels: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (user, kernel) in who.iter().filter_map(|who| who.split_once(" on ")) {
        kernels.entry(user).or_default().push(kernel);
    }
    let users: Vec<_> = kernels.iter().map(|(user, kernels)| format!("{user}: {}", kernels.join(", "))).collect();
    match kernels.values().collect::<Vec<_>>().as_slice() {
        [one, other] if one == other => format!("both: {}", one.join(", ")),
        _ => users.join("; "),
    }
}
