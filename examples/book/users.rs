use std::fs::{self, Permissions};
use std::io::ErrorKind;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::Command;

use belljar::isolated;

#[isolated(user = 1000)]
fn an_ordinary_user_is_refused() {
    let error = TcpListener::bind("127.0.0.1:80").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
}

#[isolated(uids = 65536, unsupported = "skip")]
fn a_secret_is_for_its_owner() {
    fs::write("/tmp/secret", "for root").unwrap();
    fs::set_permissions("/tmp/secret", Permissions::from_mode(0o600)).unwrap();
    let as_user = |uid| Command::new("cat").arg("/tmp/secret").uid(uid).gid(uid).output().unwrap();
    assert!(as_user(0).status.success());
    assert!(!as_user(1000).status.success());
}
