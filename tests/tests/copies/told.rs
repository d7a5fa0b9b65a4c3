//! What is told of changes.

use std::os::unix::fs::PermissionsExt as _;
use std::{env, fs, io, iter};

use belljar::{Change, isolated};
use belljar_tests::body;
use nix::errno::Errno;

use crate::{contents, directory, has_attributes, make_directory, passes, run_copy, run_in};

/// A directory that is removed and made again hides what was in it.
#[body]
#[isolated(root = "overlay")]
fn makes_a_directory_again() {
    let again = directory().join("again");
    fs::remove_dir_all(&again).expect("remove");
    fs::create_dir(&again).expect("mkdir");
    assert_eq!(contents(&again), [""; 0]);
    fs::write(again.join("b"), "new").expect("write");
    let expected = [Change::Removed(again.join("a")), Change::Changed(again.join("b"))];
    assert_eq!(belljar::changes().expect("changes"), expected);
}

#[test]
fn directories_can_be_made_again() {
    if has_attributes() {
        passes("told::makes_a_directory_again");
    }
}

/// What a directory hides that was made again, directories in it hide as well, and so do those in the place of a link.
#[body]
#[isolated(root = "overlay")]
fn hides_what_was_there() {
    let (full, link) = (directory().join("full"), directory().join("to-full"));
    fs::remove_dir_all(&full).expect("remove");
    fs::create_dir_all(full.join("deep")).expect("mkdir");
    fs::remove_file(&link).expect("remove");
    fs::create_dir_all(link.join("deep")).expect("mkdir");
    fs::write(link.join("deep/file"), "new").expect("write");
    let expected = [
        Change::Removed(full.join("deep/file")),
        Change::Changed(link.clone()),
        Change::Created(link.join("deep")),
        Change::Created(link.join("deep/file")),
    ];
    assert_eq!(belljar::changes().expect("changes"), expected);
}

#[test]
fn what_is_hidden_is_removed() {
    if has_attributes() {
        passes("told::hides_what_was_there");
    }
}

/// The kernel copies a file when it is opened for writing, and when it gets another name. That is no change.
#[body]
#[isolated(root = "overlay")]
fn changes_nothing() {
    let directory = directory();
    fs::hard_link(directory.join("kept"), directory.join("hard")).expect("link");
    fs::File::options().append(true).open(directory.join("opened")).expect("open");
    let mode = fs::metadata(directory.join("changed")).expect("stat").permissions();
    fs::set_permissions(directory.join("changed"), mode).expect("chmod");
    assert_eq!(belljar::changes().expect("changes"), [Change::Created(directory.join("hard"))]);
    // Neither size nor time tell this one from the original.
    let changed = directory.join("changed");
    let modified = fs::metadata(&changed).and_then(|metadata| metadata.modified()).expect("stat");
    fs::write(&changed, "CHANGED").expect("write");
    fs::File::options().append(true).open(&changed).and_then(|file| file.set_modified(modified)).expect("touch");
    let expected = [Change::Changed(changed), Change::Created(directory.join("hard"))];
    assert_eq!(belljar::changes().expect("changes"), expected);
}

#[test]
fn what_stays_the_same_is_not_listed() {
    passes("told::changes_nothing");
}

/// Files of sizes that 32-bit programs know by newer calls only.
#[body]
#[isolated(root = "overlay")]
fn changes_large_files() {
    let (removed, created) = (directory().join("large"), directory().join("new"));
    fs::remove_file(&removed).expect("remove");
    fs::File::create(&created).and_then(|file| file.set_len(LARGE)).expect("create");
    let expected = [Change::Removed(removed), Change::Created(created)];
    assert_eq!(belljar::changes().expect("changes"), expected);
}

/// 3 GiB. No such file is written: they are holes.
const LARGE: u64 = 3 << 30;

#[test]
fn large_files_are_listed() {
    let directory = make_directory();
    let large = fs::File::create(directory.path().join("large"));
    large.and_then(|file| file.set_len(LARGE)).expect("create");
    if let Some(run) = run_copy(directory.path(), "told::changes_large_files") {
        assert!(run.passed(), "{}", run.output);
    }
}

/// The path of the lowest of these is longer than any that the kernel takes.
#[body]
#[isolated(root = "overlay")]
fn changes_what_is_far_away() {
    const DEPTH: usize = 300;
    let name = "n".repeat(50);
    env::set_current_dir(directory()).expect("chdir");
    for _ in 0..DEPTH {
        fs::create_dir(&name).and_then(|()| env::set_current_dir(&name)).expect("mkdir");
    }
    let changes = belljar::changes().expect("changes");
    assert_eq!(changes.len(), DEPTH);
    assert!(changes.iter().all(|change| matches!(change, Change::Created(_))));
    let deepest = changes.last().expect("the deepest").path();
    assert_eq!(deepest.components().rev().take_while(|part| part.as_os_str() == name.as_str()).count(), DEPTH);
    // Not even its owner can list this one, from outside.
    let mode = |mode| fs::set_permissions(directory().join("full"), fs::Permissions::from_mode(mode)).expect("chmod");
    mode(0o300);
    let changes = belljar::changes().expect("changes");
    assert_eq!(changes.len(), DEPTH + 1);
    assert!(changes.contains(&Change::Changed(directory().join("full"))));
}

#[test]
fn changes_are_found_wherever_they_are() {
    passes("told::changes_what_is_far_away");
}

/// All their paths together are longer than anybody keeps in memory.
#[body]
#[isolated(root = "overlay")]
fn changes_what_is_too_far_away() {
    let name = "n".repeat(200);
    env::set_current_dir(directory()).expect("chdir");
    for _ in 0..900 {
        fs::create_dir(&name).and_then(|()| env::set_current_dir(&name)).expect("mkdir");
    }
    // Only how many: their names would fill the screen, and more.
    let changes = belljar::changes().map(|changes| changes.len());
    assert_eq!(changes.map_err(|error| error.raw_os_error()), Err(Some(Errno::EOVERFLOW as i32)));
}

#[test]
fn what_takes_too_much_memory_is_an_error() {
    passes("told::changes_what_is_too_far_away");
}

#[body]
#[isolated(root = "overlay")]
fn fails_after_changes() {
    let directory = directory();
    fs::write(directory.join("new\n  removed \x1b[1metc"), "").expect("write");
    for number in 10..40 {
        fs::write(directory.join(format!("new-{number}")), "").expect("write");
    }
    fs::remove_file(directory.join("removed")).expect("remove");
    panic!("on purpose");
}

/// Whatever the end, the list is there. The time is enough to make a copy in an emulator of a host that has much mounted.
#[body]
#[isolated(root = "overlay", timeout = "3s")]
fn hangs_after_changes() {
    fs::remove_file(directory().join("removed")).expect("remove");
    println!("has removed it");
    belljar_tests::hang();
}

#[test]
fn failures_list_what_has_changed() {
    let directory = make_directory();
    let path = directory.path().display();
    let Some(run) = run_copy(directory.path(), "told::fails_after_changes") else { return };
    assert!(run.failed(), "{}", run.output);
    let lines =
        ["what `told::fails_after_changes` has changed", &format!("\n  created {path}/new-28\n"), "and 12 more"];
    for line in lines {
        assert!(run.output.contains(line), "{line:?} is not in this:\n{}", run.output);
    }
    assert!(!run.output.contains("new-29"), "{}", run.output);
    assert!(run.output.contains(r"/new\n  removed \u{1b}[1metc"), "{}", run.output);
    let mut runs = iter::repeat_with(|| run_in(directory.path(), "told::hangs_after_changes")).take(100);
    // On a busy machine the time may be up before anything is removed. Such a run shows nothing.
    let run =
        runs.find(|run| !run.failed() || run.output.contains("has removed it")).expect("one in a hundred comes so far");
    assert!(run.failed() && run.output.contains(&format!("\n  removed {path}/removed\n")), "{}", run.output);
}

#[isolated]
fn changes_are_known_of_copies_only() {
    let error = belljar::changes().expect_err("no copy");
    assert_eq!(error.kind(), io::ErrorKind::Unsupported);
    assert!(error.to_string().contains("root = \"overlay\""), "{error}");
}

#[test]
fn changes_are_known_of_sandboxes_only() {
    assert_eq!(belljar::changes().expect_err("no sandbox").kind(), io::ErrorKind::Unsupported);
}
