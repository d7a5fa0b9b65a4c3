//! `docs/faults.md`.

use std::process::Command;

use belljar::{Fault, isolated};

#[isolated]
fn a_commit_that_is_not_safe_is_told() {
    let fault = Fault::new("fsync").errno(libc::EIO).path("/data/*").nth(2).start().unwrap();
    commit().unwrap_err();
    assert_eq!(fault.hits(), 1);
} // Dropped: calls go through again.

fn commit() -> std::io::Result<()> {
    std::fs::create_dir("/data")?;
    let file = std::fs::File::create("/data/wal")?;
    file.sync_all()?;
    file.sync_all()
}

fn small_disk() -> std::io::Result<()> {
    std::fs::create_dir("/data")?;
    let size = Some("size=64k");
    Ok(nix::mount::mount(Some("none"), "/data", Some("tmpfs"), nix::mount::MsFlags::empty(), size)?)
}

#[isolated]
fn a_small_disk_is_full() {
    small_disk().unwrap();
    let error = std::fs::write("/data/large", [0; 100_000]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
    assert_eq!(std::fs::metadata("/data/large").unwrap().len(), 64 << 10);
}

#[isolated]
fn mv_tells_that_it_has_failed() -> std::io::Result<()> {
    std::fs::create_dir_all("/backup/new")?;
    let renaming = ["rename", "renameat", "renameat2"];
    let _faults = renaming.map(|call| Fault::new(call).errno(libc::EIO).path("/backup/*").start().unwrap());
    assert!(!Command::new("mv").args(["-T", "/backup/new", "/backup/current"]).status()?.success());
    Ok(())
}

#[ignore = "takes git"]
#[isolated]
fn a_commit_of_git_is_whole_or_none() -> std::io::Result<()> {
    let git = |words: &str| Command::new("git").args(["-C", "/project"]).args(words.split(' ')).status();
    let commit = || git("-c user.name=me -c user.email=me commit --quiet --allow-empty --message text");
    std::fs::create_dir("/project")?;
    assert!(git("init --quiet")?.success() && commit()?.success());
    let renaming = ["rename", "renameat", "renameat2"];
    let faults = renaming.map(|call| Fault::new(call).errno(libc::EIO).path("/project/.git/**").start().unwrap());
    assert!(!commit()?.success());
    drop(faults);
    assert!(git("fsck --strict")?.success() && commit()?.success());
    Ok(())
}
