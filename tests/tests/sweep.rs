//! Sweeps: each call of a kind fails once. Planted bugs are found, and their mended twins have none.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;
use std::time::Duration;

use belljar::{Ended, Fault, Sweep, Swept, isolated};

/// What a sweep says that finds something.
fn found<T>(sweep: impl FnOnce() -> T) -> String {
    let Err(panic) = catch_unwind(AssertUnwindSafe(sweep)) else { panic!("nothing was found") };
    panic.downcast_ref::<String>().expect("words").clone()
}

/// A directory with a value in it.
fn data() {
    fs::create_dir("/data").expect("mkdir");
    fs::write("/data/value", "old").expect("write");
}

fn value() -> String {
    fs::read_to_string("/data/value").expect("a value")
}

fn sweep(fault: Fault) -> Sweep<'static> {
    Sweep::new(fault.path("/data/*")).state("/data")
}

// ---- A rename without a sync before it ----

fn save(value: &str, syncs: bool) -> io::Result<()> {
    let mut file = File::create("/data/new")?;
    file.write_all(value.as_bytes())?;
    if syncs {
        file.sync_all()?;
    }
    fs::rename("/data/new", "/data/value")
}

fn save_twice(syncs: bool) -> impl Fn() -> io::Result<()> {
    move || save("first", syncs).and_then(|()| save("second", syncs))
}

fn is_whole(_: Ended) {
    assert!(["old", "first", "second"].contains(&&*value()), "{:?}", value());
}

#[isolated]
fn a_rename_without_a_sync_is_found() {
    data();
    let told = found(|| sweep(Fault::writing().kill()).power_cut().check(is_whole).run(save_twice(false)));
    assert!(told.contains("the check panicked") && told.contains("\"\""), "{told}");
    // The kernel keeps what a process has written. It takes a power cut.
    sweep(Fault::writing().kill()).check(is_whole).run(save_twice(false));
}

#[isolated]
fn a_rename_after_a_sync_is_right() {
    data();
    for fault in [
        Fault::writing().kill(),
        Fault::writing().errno(libc::ENOSPC),
        Fault::syncing().errno(libc::EIO),
        Fault::syncing().kill(),
    ] {
        let Swept { calls, missed, .. } = sweep(fault).power_cut().check(is_whole).run(save_twice(true));
        assert_eq!((calls, missed), (2, 0));
    }
}

// ---- An error that is swallowed ----

fn append(swallows: bool) -> io::Result<()> {
    let mut file = OpenOptions::new().append(true).open("/data/value")?;
    file.write_all(b" and new")?;
    let synced = file.sync_data();
    if swallows { Ok(()) } else { synced }
}

fn is_there_if_said(ended: Ended) {
    assert!(ended != Ended::Returned || value() == "old and new", "{:?}", value());
}

#[isolated]
fn a_swallowed_error_is_found() {
    data();
    let of_sync = || sweep(Fault::syncing().errno(libc::EIO)).power_cut().check(is_there_if_said);
    let told = found(|| of_sync().run(|| append(true)));
    let fault = "Fault::syncing().errno(libc::EIO).path(\"/data/*\").nth(1)";
    assert!(told.contains(&format!("{fault}: the body returned no error, and the check panicked")), "{told}");
    of_sync().run(|| append(false));
}

// ---- A header that is believed ----

fn write_record() -> io::Result<()> {
    let mut file = File::create("/data/record")?;
    file.write_all(&[5])?;
    file.write_all(b"he")?;
    file.write_all(b"llo")
}

fn read_record(believes: bool) -> Option<Vec<u8>> {
    let bytes = fs::read("/data/record").ok()?;
    let (length, rest) = bytes.split_first()?;
    let length = usize::from(*length);
    if believes { Some(rest[..length].to_vec()) } else { rest.get(..length).map(<[u8]>::to_vec) }
}

#[isolated]
fn a_half_written_record_that_is_believed_is_found() {
    data();
    let told = found(|| sweep(Fault::writing().kill()).check(|_| drop(read_record(true))).run(write_record));
    assert!(told.starts_with("bad cases: 2 of 3 ") && told.contains("range end index 5 out of range"), "{told}");
    assert!(told.contains(".nth(2): the body was killed, and the check panicked"), "{told}");
    sweep(Fault::writing().kill()).check(|_| drop(read_record(false))).run(write_record);
}

// ---- A loop without an end ----

fn sync_until(mut tries: usize) -> io::Result<()> {
    let file = File::open("/data/value")?;
    loop {
        match file.sync_all() {
            Err(_) if tries > 1 => tries -= 1,
            synced => return synced,
        }
    }
}

#[isolated]
fn a_loop_without_an_end_is_found() {
    data();
    // What ends may be late too, on a busy machine. Such a sweep shows nothing, and the next has twice the time.
    let told_of =
        |timeout| found(|| sweep(Fault::syncing().errno(libc::EIO)).timeout(timeout).run(|| sync_until(usize::MAX)));
    let mut tellings = (0..8).map(|doubled| told_of(Duration::from_millis(300 << doubled)));
    let shows = |told: &String| !told.contains(".nth(1)") && !told.contains("with no call failing");
    let told = tellings.find(shows).expect("what ends is over in time");
    // It ends if the call fails once.
    assert!(
        told.starts_with("bad cases: 1 of 2 (the body makes 1 such call)")
            && told.contains(".after(0): the body was not over in time"),
        "{told}"
    );
    sweep(Fault::syncing().errno(libc::EIO)).run(|| sync_until(3));
}

// ---- A lock that stays ----

fn write_locked(unlocks: bool) -> io::Result<()> {
    File::create_new("/data/lock")?;
    let written = fs::write("/data/value", "new");
    if unlocks || written.is_ok() {
        fs::remove_file("/data/lock")?;
    }
    written
}

#[isolated]
fn a_lock_that_stays_is_found() {
    data();
    let is_unlocked = |_| assert!(!fs::exists("/data/lock").expect("stat"), "locked");
    let of_write = || sweep(Fault::writing().errno(libc::ENOSPC)).check(is_unlocked);
    let told = found(|| of_write().run(|| write_locked(false)));
    assert!(told.contains("the body returned an error, and the check panicked") && told.contains("locked"), "{told}");
    of_write().run(|| write_locked(true));
}

// ---- What a case is ----

#[isolated]
fn each_case_has_a_state_of_its_own() {
    data();
    fs::hard_link("/data/value", "/data/other-name").expect("link");
    fs::set_permissions("/data/value", fs::Permissions::from_mode(0o640)).expect("chmod");
    std::os::unix::fs::symlink("value", "/data/link").expect("symlink");
    nix::unistd::mkfifo("/data/fifo", nix::sys::stat::Mode::S_IRUSR).expect("mkfifo");
    std::env::set_current_dir("/data").expect("chdir");
    let modified = fs::metadata("/data/value").expect("stat").modified().expect("a time");
    let body = || {
        assert_eq!(fs::read_to_string("value").expect("read"), "old");
        let meta = fs::metadata("other-name").expect("stat");
        assert_eq!((meta.nlink(), meta.mode() & 0o777, meta.modified().expect("a time")), (2, 0o640, modified));
        assert_eq!(fs::read_link("link").expect("readlink").to_str(), Some("value"));
        assert!(fs::symlink_metadata("fifo").expect("stat").file_type().is_fifo());
        let _ = fs::write("value", "new").and_then(|()| fs::write("link", "newer"));
        fs::remove_file("other-name").expect("unlink");
    };
    let Swept { calls, cases, missed } = sweep(Fault::writing().errno(libc::ENOSPC)).run(body);
    assert_eq!((calls, cases, missed), (2, 4, 0));
    assert_eq!(value(), "old");
    assert!(fs::exists("/data/other-name").expect("stat"));
}

#[isolated]
fn what_a_body_leaves_is_ended() {
    data();
    let body = || {
        Command::new("sh").args(["-c", "setsid sleep 1000 & sleep 1001 &"]).status().expect("sh");
        fs::write("/data/value", "new")
    };
    sweep(Fault::writing().errno(libc::EIO)).run(body);
    assert_eq!(belljar_tests::processes(), BTreeSet::from([1, 2]), "init, and this one");
}

#[isolated]
fn programs_are_swept_too() {
    data();
    let copy = || {
        let status = Command::new("cp").args(["/data/value", "/data/copy"]).status().expect("cp");
        if status.success() { Ok(()) } else { Err("cp failed") }
    };
    let is_copied =
        |ended| assert!(ended != Ended::Returned || fs::read("/data/copy").is_ok_and(|copy| copy == b"old"));
    sweep(Fault::writing().errno(libc::ENOSPC)).check(is_copied).run(copy);
}

#[isolated]
fn a_body_that_ends_its_process_is_found() {
    data();
    let exits = || fs::write("/data/value", "new").unwrap_or_else(|_| std::process::exit(3));
    let told = found(|| sweep(Fault::writing().errno(libc::EIO)).run(exits));
    assert!(told.contains(".nth(1): the body ended its process with the status 3"), "{told}");
    let aborts = || fs::write("/data/value", "new").unwrap_or_else(|_| std::process::abort());
    let told = found(|| sweep(Fault::writing().errno(libc::EIO)).run(aborts));
    assert!(told.contains("the body was killed by the signal 6"), "{told}");
}

fn write_often(times: usize) -> io::Result<()> {
    let mut file = File::create("/data/value")?;
    (0..times).try_for_each(|number| file.write_all(&[number as u8]))
}

#[isolated]
fn many_calls_are_sampled() {
    data();
    // A case that was killed at the call of some number has written one byte less.
    let killed_at = |seed| {
        let is_first =
            |ended| assert!(ended != Ended::Killed || fs::read("/data/value").expect("read").is_empty(), "a later one");
        let told =
            found(|| sweep(Fault::writing().kill()).at_most(5).seed(seed).check(is_first).run(|| write_often(100)));
        told.split("in the first of them").next().map(str::to_owned)
    };
    let told = killed_at(1);
    assert!(
        told.as_ref().is_some_and(|told| told.starts_with("bad cases: 4 of 5 (the body makes 100 such calls)")),
        "{told:?}"
    );
    assert_eq!(killed_at(1), told);
    assert_ne!(killed_at(2), told);
}

/// What the sweep itself does, and what is printed, is none of the body's calls.
#[isolated]
fn only_the_bodys_own_calls_are_swept() {
    let opens = || {
        println!("the body");
        File::open("/etc/passwd").map(drop)
    };
    let swept = Sweep::new(Fault::opening().errno(libc::EMFILE)).run(opens);
    assert_eq!(swept, Swept { calls: 1, cases: 2, missed: 0 });
    assert_eq!(Sweep::new(Fault::opening().kill()).run(opens), Swept { calls: 1, cases: 1, missed: 0 });
    let told = found(|| Sweep::new(Fault::writing().errno(libc::EIO)).run(|| println!("the body")));
    assert!(told.contains("the body makes no call"), "{told}");
}

#[isolated]
fn a_thread_that_was_joined_is_none() {
    data();
    for _ in 0..50 {
        std::thread::spawn(|| {}).join().expect("a thread");
        sweep(Fault::writing().errno(libc::EIO)).at_most(1).run(|| write_often(1));
    }
}

/// The first case is killed while it has a fault of its own.
#[isolated]
fn faults_of_a_killed_body_end_with_it() {
    data();
    let body = || {
        let _own = Fault::opening().errno(libc::EMFILE).path("/data/other").start().expect("a fault");
        write_often(1)
    };
    let check = |_| drop(File::create("/data/other").expect("no fault is active any more"));
    sweep(Fault::writing().kill()).check(check).run(body);
    File::create("/data/other").expect("no fault is active any more");
}

#[isolated]
fn a_file_that_is_overwritten_in_place_is_found() {
    data();
    let overwrite = || fs::write("/data/value", "first");
    let told = found(|| sweep(Fault::writing().kill()).power_cut().check(is_whole).run(overwrite));
    assert!(told.contains(".nth(1): the body was killed, and the check panicked"), "{told}");
}

/// A preparation for what a sweep keeps changes nothing of the root.
#[isolated(root = "overlay", unsupported = "skip")]
fn nothing_is_left_in_the_root() -> io::Result<()> {
    data();
    sweep(Fault::syncing().errno(libc::EIO)).power_cut().run(|| append(false));
    let changes = belljar::changes()?;
    assert_eq!(changes.iter().filter(|change| !format!("{change:?}").contains("/data")).count(), 0, "{changes:?}");
    Ok(())
}

// ---- What can't be swept ----

#[isolated]
fn what_can_not_be_swept_is_told() {
    data();
    let told = found(|| sweep(Fault::syncing().errno(libc::EIO)).run(|| ()));
    assert!(told.contains("the body makes no call that Fault::syncing()"), "{told}");
    let told = found(|| sweep(Fault::writing().errno(libc::EIO)).run(|| Err::<(), _>("never")));
    assert!(told.contains("with no call failing, the body returned an error") && told.contains("never"), "{told}");
    let told = found(|| sweep(Fault::writing().errno(libc::EIO)).run(|| panic!("at once")));
    assert!(told.contains("with no call failing, the body panicked") && told.contains("at once"), "{told}");
    let told = found(|| sweep(Fault::new("fsink").errno(libc::EIO)).run(|| ()));
    assert!(told.contains("fsync"), "{told}");
    let late = Fault::syncing().delay(Duration::from_millis(1));
    let told = found(|| sweep(late).power_cut().run(|| append(false)));
    assert!(told.contains("nobody knows what such a call has synced"), "{told}");
    let told = found(|| Sweep::new(Fault::writing().errno(libc::EIO)).state("/nowhere").run(|| ()));
    assert!(told.contains("/nowhere can't be copied"), "{told}");
    let (ends, waits) = std::sync::mpsc::channel::<()>();
    let thread = std::thread::spawn(move || waits.recv());
    let told = found(|| sweep(Fault::writing().errno(libc::EIO)).run(|| write_often(1)));
    assert!(told.contains("the test has threads besides its own"), "{told}");
    drop(ends);
    let _ = thread.join().expect("a thread");
}

#[isolated(user = 1000)]
fn another_user_can_not_sweep() {
    let told =
        found(|| Sweep::new(Fault::writing().errno(libc::EIO)).state("/tmp").run(|| fs::write("/tmp/value", "new")));
    assert!(told.contains("no mount namespace can be had"), "{told}");
}

#[test]
fn nothing_is_swept_outside() {
    let told = found(|| Sweep::new(Fault::writing().errno(libc::EIO)).run(|| ()));
    assert!(told.contains("no sandbox"), "{told}");
}
