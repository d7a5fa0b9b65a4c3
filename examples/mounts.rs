//! The crate [`sys_mount`] mounts and unmounts file systems.
//!
//! As plain `#[test]`s, these need root, and a failed assertion leaves the mounts on the machine, where they hide what
//! was there before.

use std::fs;
use std::path::Path;

use belljar::isolated;
use sys_mount::{Mount, MountFlags, Unmount as _, UnmountFlags};

#[isolated]
fn a_tmpfs_is_mounted_and_unmounted() {
    let mount = Mount::builder().fstype("tmpfs").data("size=1m").mount("tmpfs", "/mnt").expect("mounted");
    fs::write("/mnt/file", "text").expect("writable");
    mount.unmount(UnmountFlags::empty()).expect("unmounted");
    assert!(!Path::new("/mnt/file").exists());
}

#[isolated]
fn a_read_only_mount_refuses_to_be_written_to() {
    fs::create_dir("/var/lib/data").expect("writable");
    let bind = |flags| Mount::builder().flags(flags).mount("/var/lib/data", "/mnt");
    bind(MountFlags::BIND).expect("mounted");
    bind(MountFlags::BIND | MountFlags::REMOUNT | MountFlags::RDONLY).expect("remounted");
    let error = fs::write("/mnt/file", "text").expect_err("read-only");
    assert_eq!(error.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    fs::write("/var/lib/data/file", "text").expect("the other way in is open");
}
