//! Saving a file so that it is whole whatever fails: written beside, synced, renamed. The tests have each step fail.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;
use std::process::Command;

use belljar::{Fault, isolated};

/// What is tested.
fn save(path: &Path, text: &str) -> io::Result<()> {
    let beside = path.with_extension("new");
    let saved = File::create(&beside).and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&beside, path)
    });
    if saved.is_err() {
        let _ = fs::remove_file(&beside);
    }
    saved
}

fn settings() -> &'static Path {
    let path = Path::new("/etc/app/settings");
    fs::create_dir_all("/etc/app").expect("a directory");
    save(path, "color = red").expect("nothing fails yet");
    path
}

#[isolated]
fn the_old_file_stays_whatever_fails() {
    let path = settings();
    let faults = [
        Fault::opening().errno(libc::EMFILE),
        Fault::writing().errno(libc::ENOSPC),
        Fault::syncing().errno(libc::EIO),
        Fault::new("rename").errno(libc::EIO),
    ];
    for fault in faults {
        let fault = fault.path("/etc/app/*").start().expect("a fault");
        save(path, "color = blue").expect_err("it can't be saved");
        assert_eq!(fault.hits(), 1);
        drop(fault);
        assert_eq!(fs::read_to_string(path).expect("read"), "color = red");
        assert_eq!(fs::read_dir("/etc/app").expect("list").count(), 1, "nothing is left beside it");
    }
}

/// Writes may do less than they were asked for, and signals interrupt calls: no failure at all.
#[isolated]
fn short_and_interrupted_writes_are_no_failure() {
    let path = settings();
    let _short = Fault::writing().short(3).path("/etc/app/*").start().expect("a fault");
    save(path, "color = blue").expect("it takes more writes");
    assert_eq!(fs::read_to_string(path).expect("read"), "color = blue");
    let _interrupted = Fault::new("write").errno(libc::EINTR).first(2).start().expect("a fault");
    save(path, "color = green").expect("it tries again");
    assert_eq!(fs::read_to_string(path).expect("read"), "color = green");
}

/// Another program's error path.
#[isolated]
fn a_script_notices_that_mv_has_failed() {
    let path = settings();
    fs::write("/etc/app/new", "color = blue").expect("write");
    // If the new name is taken, mv asks a second time, by another call.
    let renaming = ["rename", "renameat", "renameat2"].map(|call| Fault::new(call).errno(libc::EIO).path("/etc/app/*"));
    let _faults = renaming.map(|fault| fault.start().expect("a fault"));
    let script = "mv -T /etc/app/new /etc/app/settings 2>/dev/null || echo 'not saved'";
    let output = Command::new("sh").args(["-c", script]).output().expect("sh");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "not saved\n");
    assert_eq!(fs::read_to_string(path).expect("read"), "color = red");
}
