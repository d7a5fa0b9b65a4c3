//! Temporary files: `/tmp` is empty, and nobody else's.

use std::fs;
use std::io::Write as _;

use belljar::isolated;

#[isolated]
fn files_and_directories() {
    assert_eq!(fs::read_dir(std::env::temp_dir()).expect("readable").count(), 0);
    let directory = tempfile::tempdir().expect("a directory");
    let mut file = tempfile::NamedTempFile::new_in(&directory).expect("a file");
    file.write_all(b"text").expect("write");
    file.persist("/tmp/kept").expect("rename");
    assert_eq!(fs::read_to_string("/tmp/kept").expect("read"), "text");
}

#[isolated(net)]
fn in_the_hosts_tree() {
    let directory = tempfile::tempdir().expect("a directory");
    tempfile::tempfile_in(&directory).expect("a file without a name").write_all(b"text").expect("write");
}

#[isolated]
fn in_the_target_directory() {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
}
