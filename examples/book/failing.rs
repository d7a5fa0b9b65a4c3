use belljar::isolated;
use std::fs;

#[isolated(root = "overlay")]
fn removes_its_settings() {
    fs::remove_file("/etc/passwd").unwrap();
    let changes = belljar::changes().unwrap();
    assert_eq!(changes, [belljar::Change::Removed("/etc/passwd".into())]);
}
