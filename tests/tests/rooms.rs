//! The rooms of the runtime: code knows of the rooms below its own, and of no other. Within a room, no files know of each other in a circle. No
//! file is long.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The rooms, from the top down. Those on one line know nothing of each other.
const ROOMS: &[&[&str]] = &[
    &["__private", "lib"],
    &["fuzzed", "start"],
    &["harness"],
    &["diagnosis"],
    &["images"],
    &["zygote"],
    &["sweep"],
    &["sandbox"],
    &["faults", "net", "rootfs"],
    &["cgroup"],
    &["frame"],
    &["ns"],
    &["proc"],
    &["settings"],
    &["json", "terminal"],
    &["chance", "sorted", "spec", "sys", "text", "whereabouts"],
    &["collect"],
];

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the repository")
}

/// The files in a folder and below it.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("a folder of sources").flatten().map(|entry| entry.path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// Each file, by its path below the sources, with its code.
fn sources() -> BTreeMap<PathBuf, String> {
    let root = repository().join("runtime/src");
    let code = |path: &Path| {
        let text = fs::read_to_string(path).expect("a source");
        text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
    };
    files(&root).into_iter().map(|path| (path.strip_prefix(&root).expect("below").into(), code(&path))).collect()
}

/// The names that follow `before` in some code.
fn names_after<'c>(code: &'c str, before: &'static str) -> impl Iterator<Item = &'c str> {
    code.split(before)
        .skip(1)
        .map(|rest| rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default())
}

/// The room of a file: its folder, or itself.
fn room_of(file: &Path) -> String {
    let first = file.iter().next().expect("a name").to_string_lossy();
    first.trim_end_matches(".rs").to_owned()
}

fn rank(room: &str) -> Option<usize> {
    ROOMS.iter().position(|rooms| rooms.contains(&room))
}

/// The arrows that don't lead down.
fn wrong_arrows(sources: &BTreeMap<PathBuf, String>) -> Vec<String> {
    let mut wrong = Vec::new();
    for (file, code) in sources {
        let room = room_of(file);
        assert!(rank(&room).is_some(), "{room} is in no line of ROOMS");
        for target in names_after(code, "crate::").filter(|target| *target != room && rank(target) <= rank(&room)) {
            wrong.push(format!("{} → {target}", file.display()));
        }
    }
    wrong
}

/// The files of its folder that a file knows of. What it has from above is in `mod.rs`.
fn known(file: &Path, code: &str, sources: &BTreeMap<PathBuf, String>) -> Vec<PathBuf> {
    let whole = file.with_file_name("mod.rs");
    let sibling = |name: &str| {
        let files = [file.with_file_name(format!("{name}.rs")), file.with_file_name(name).join("mod.rs")];
        files.into_iter().find(|other| sources.contains_key(other))
    };
    if file == whole {
        let siblings = sources.keys().filter(|other| other.parent() == file.parent() && *other != file);
        let is_named = |other: &&PathBuf| {
            other.file_stem().is_some_and(|name| code.contains(&format!("{}::", name.to_string_lossy())))
        };
        return siblings.filter(is_named).cloned().collect();
    }
    let in_braces =
        code.split("super::{").skip(1).filter_map(|rest| rest.split_once("};")).flat_map(|(list, _)| list.split(','));
    let names =
        names_after(code, "super::").chain(in_braces.map(|path| path.trim().split("::").next().unwrap_or_default()));
    names
        .filter(|name| !matches!(*name, "" | "super"))
        .filter_map(|name| sibling(name).or(Some(whole.clone())))
        .collect()
}

/// The files of its room that a file knows of by paths that begin at the room.
fn known_from_top(file: &Path, code: &str, sources: &BTreeMap<PathBuf, String>) -> Vec<PathBuf> {
    let room = room_of(file);
    let found = |path: &str| {
        let mut names = path.split("::").map(|name| name.split(|c: char| !c.is_alphanumeric() && c != '_').next());
        let [first, second] = [names.next().flatten()?, names.next().flatten().unwrap_or_default()];
        let place = Path::new(&room).join(first);
        let second = place.join(second);
        let files =
            [second.with_extension("rs"), second.join("mod.rs"), place.with_extension("rs"), place.join("mod.rs")];
        files.into_iter().find(|other| sources.contains_key(other) && other != file)
    };
    let top = format!("crate::{room}::");
    let is_at_top = file.iter().count() == 2 && !file.ends_with("mod.rs");
    let code = if is_at_top { code.replace("super::", &top) } else { code.to_owned() };
    code.split(&top).skip(1).filter_map(found).collect()
}

/// Files of one room that know of each other in a circle, or of one that does.
fn circles(all: &BTreeMap<PathBuf, String>) -> Vec<PathBuf> {
    // Unit tests know of the file that they are in.
    let code = |text: &'_ str| text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default().to_owned();
    let sources = all.iter().filter(|(file, _)| !file.ends_with("tests.rs"));
    let beside = sources.clone().map(|(file, text)| (file.clone(), known(file, &code(text), all)));
    let in_room = sources.map(|(file, text)| (file.clone(), known_from_top(file, &code(text), all)));
    [beside.collect(), in_room.collect()].into_iter().flat_map(in_circles).collect()
}

/// Those that know of each other in a circle, or of one that does.
fn in_circles(mut left: BTreeMap<PathBuf, Vec<PathBuf>>) -> Vec<PathBuf> {
    loop {
        let count = left.len();
        let knows_of_those_left = |known: &Vec<PathBuf>| known.iter().any(|other| left.contains_key(other));
        let free: Vec<_> =
            left.iter().filter(|(_, known)| !knows_of_those_left(known)).map(|(file, _)| file.clone()).collect();
        left.retain(|file, _| !free.contains(file));
        if left.len() == count {
            return left.into_keys().collect();
        }
    }
}

#[test]
fn arrows_only_go_down() {
    let sources = sources();
    assert_eq!(wrong_arrows(&sources), [""; 0]);
    assert_eq!(circles(&sources), Vec::<PathBuf>::new());
}

/// The twin: one more arrow of each kind is told.
#[test]
fn other_arrows_are_found() {
    let mut sources = sources();
    let add = |sources: &mut BTreeMap<PathBuf, String>, file: &str, code: &str| {
        sources.get_mut(Path::new(file)).expect(file).push_str(code);
    };
    add(&mut sources, "frame/frames.rs", "\nuse crate::harness::run;\n");
    assert_eq!(wrong_arrows(&sources), ["frame/frames.rs → harness"]);
    add(&mut sources, "frame/step.rs", "\nuse super::{moments::record};\n");
    let circle = circles(&sources);
    assert!(circle.contains(&"frame/moments.rs".into()) && circle.contains(&"frame/step.rs".into()), "{circle:?}");
}

/// Where the collections and sorts of the standard library are worth what they cost in a user's build. See `sorted.rs`.
const COSTLY: [&str; 2] = ["net/wire/mod.rs", "sorted.rs"];

/// Files that users get by default, and that use them.
fn costly(sources: &BTreeMap<PathBuf, String>) -> Vec<&Path> {
    let is_default = |file: &Path| {
        !file.starts_with("images") && file != Path::new("fuzzed.rs") && !file.to_string_lossy().contains("tests")
    };
    let is_costly = |text: &str| {
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        code.contains("BTreeMap") || code.contains("BTreeSet") || code.contains(".sort")
    };
    sources.iter().filter(|(file, text)| is_default(file) && is_costly(text)).map(|(file, _)| file.as_path()).collect()
}

#[test]
fn the_builds_of_users_have_few_costly_collections() {
    let mut sources = sources();
    assert_eq!(costly(&sources), COSTLY.map(Path::new), "use `crate::sorted`, which costs a user's build less");
    // The twin: one more is told.
    sources.get_mut(Path::new("proc.rs")).expect("proc.rs").insert_str(0, "use std::collections::BTreeSet;\n");
    assert!(costly(&sources).contains(&Path::new("proc.rs")));
}

/// Functions that fail where what they read is no UTF-8.
const FOR_TEXT_ALONE: [&str; 8] = [
    "read_to_string(",
    "read_line(",
    "env::var(",
    "env::vars(",
    "env::args(",
    "into_string(",
    "String::from_utf8(",
    "BufRead::lines",
];

/// Uses of them, but for images, whose names are UTF-8 by their format.
fn for_text_alone(sources: &BTreeMap<PathBuf, String>) -> Vec<(&Path, &'static str)> {
    let mut found = Vec::new();
    for (file, text) in sources {
        let is_ours = file != Path::new("fuzzed.rs") && !file.starts_with("images");
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        if is_ours && !file.to_string_lossy().contains("tests") {
            let used = FOR_TEXT_ALONE.into_iter().filter(|name| code.contains(name));
            found.extend(used.map(|name| (file.as_path(), name)));
        }
    }
    found
}

/// A name that is no UTF-8 has once made all limits vanish.
#[test]
fn what_comes_from_outside_is_bytes() {
    let mut sources = sources();
    // Names of functions, and what an image says.
    let known =
        ["harness/listed_twice.rs", "rootfs/image_directory.rs"].map(|file| (Path::new(file), "String::from_utf8("));
    assert_eq!(
        for_text_alone(&sources),
        known,
        "read bytes: what the kernel, files and the environment say need not be UTF-8"
    );
    // The twin: one more is told.
    let code = sources.get_mut(Path::new("settings.rs")).expect("settings.rs");
    code.insert_str(0, "fn f() { std::env::var(\"HOME\"); }\n");
    assert!(for_text_alone(&sources).contains(&(Path::new("settings.rs"), "env::var(")));
}

/// The locks that tests share in the test binary. Where another thread has one at a fork, it is never given back in the fork.
const SHARED_LOCKS: [(&str, &str); 14] = [
    ("cgroup/run.rs", "RUN"),
    ("harness/listed_twice.rs", "CALLED"),
    ("harness/listed_twice.rs", "REPEATED"),
    // No fork uses it.
    ("harness/pool.rs", "POOL"),
    ("harness/prepared.rs", "OUTCOMES"),
    ("harness/report.rs", "LOST"),
    ("harness/shared.rs", "ALIVE"),
    ("harness/slots.rs", "SLOTS"),
    ("harness/spare.rs", "RESERVE"),
    ("harness/trace/mod.rs", "LOST"),
    ("harness/trace/mod.rs", "SANDBOXES"),
    ("harness/trace/mod.rs", "THREADS"),
    ("harness/unsupported.rs", "SAID"),
    ("images/store.rs", "IMAGES_KNOWN"),
];

/// The statics with a lock in all rooms but those of the test's process, which has its own.
fn shared_locks(sources: &BTreeMap<PathBuf, String>) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for (file, text) in sources {
        let of_body = ["net", "faults", "sweep", "sandbox"].iter().any(|room| file.starts_with(room));
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        if of_body || file.to_string_lossy().contains("tests") {
            continue;
        }
        for declaration in code.split("static ").skip(1).filter_map(|rest| rest.split(';').next()) {
            let is_lock = ["Mutex<", "Mutex::", "RwLock<", "RwLock::"].iter().any(|lock| declaration.contains(lock));
            let is_name = |name: &&str| name.chars().all(|c| c.is_ascii_uppercase() || c == '_');
            let name = declaration.split_once(':').map(|(name, _)| name).filter(is_name);
            if let Some(name) = name.filter(|_| is_lock) {
                found.push((file.to_string_lossy().into_owned(), name.to_owned()));
            }
        }
    }
    found.sort();
    found
}

#[test]
fn locks_of_tests_are_held_at_forks() {
    let mut sources = sources();
    let known: Vec<_> = SHARED_LOCKS.map(|(file, name)| (file.to_owned(), name.to_owned())).into();
    assert_eq!(shared_locks(&sources), known, "have `harness/forks.rs` hold it, and name it here");
    let forks = &sources[Path::new("harness/forks.rs")];
    for (file, _) in SHARED_LOCKS.iter().filter(|(file, _)| *file != "harness/pool.rs") {
        let path = Path::new(file.trim_end_matches("/mod.rs")).with_extension("");
        let room = if path.starts_with("harness") {
            path.file_name().expect("a name")
        } else {
            path.iter().next().expect("a room")
        };
        let call = format!("{}::hold()", room.to_string_lossy());
        assert!(
            forks.split(|c: char| !c.is_alphanumeric() && !"_:()".contains(c)).any(|word| word.contains(&call)),
            "{call}"
        );
    }
    // The twin: one more is told.
    for (file, code) in [
        ("cgroup/systemd.rs", "static MORE: Mutex<u8> = Mutex::new(0);\n"),
        ("proc.rs", "    pub(crate) static MORE: RwLock<u8> =\n RwLock::new(0);\n"),
    ] {
        sources.get_mut(Path::new(file)).expect(file).insert_str(0, code);
        assert!(shared_locks(&sources).contains(&(file.to_owned(), "MORE".to_owned())));
    }
}

/// How many lines a file may have. What is longer has more than one topic.
const LINES: usize = 450;

#[test]
fn no_file_is_long() {
    let folders =
        ["runtime/src", "macros/src", "examples", "tests/src", "tests/tests", "tests/benches", "tests/examples"];
    let sources = folders.iter().flat_map(|folder| files(&repository().join(folder)));
    let sources = sources.filter(|path| path.extension().is_some_and(|extension| extension == "rs"));
    let lines = |path: &PathBuf| fs::read_to_string(path).expect("a source").lines().count();
    assert_eq!(sources.filter(|path| lines(path) > LINES).collect::<Vec<_>>(), Vec::<PathBuf>::new());
}
