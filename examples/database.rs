//! Ten tests that each start PostgreSQL on port 5432, from a data directory that was made once. None sees what another writes.
//!
//! As plain `#[test]`s, they take a server in a container that they share, a schema or a database for each, and the time of `initdb` for each
//! server. Here `initdb` and the schema are a preparation. PostgreSQL must be installed, so that this isn't run by default.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use belljar::{isolated, prepared};

const DATA: &str = "/var/lib/db";

/// Where Debian has the programs of a server. Each version has a directory.
fn program(name: &str) -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").expect("PostgreSQL is installed");
    let version = versions.flatten().map(|version| version.path()).max().expect("a version");
    version.join("bin").join(name)
}

fn run(command: &mut Command) -> Output {
    let output = command.output().expect("it is installed");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

/// Starts a server, or stops it. Its process belongs to nobody here: at the end it is gone with the sandbox.
fn server(action: &str) {
    let mut command = Command::new(program("pg_ctl"));
    command.args([action, "--wait", "-D", DATA, "-l", "/tmp/log", "-o", "-k /tmp -c fsync=off"]);
    run(&mut command);
}

fn sql(text: &str) -> String {
    let arguments = ["-h", "127.0.0.1", "-U", "user", "-v", "ON_ERROR_STOP=1", "-At", "-c", text, "postgres"];
    let output = run(Command::new(program("psql")).args(arguments));
    String::from_utf8(output.stdout).expect("UTF-8").trim().to_owned()
}

/// PostgreSQL does not run as root.
#[prepared(user = 1000, timeout = "120s")]
fn accounts() {
    prepare();
}

fn prepare() {
    run(Command::new(program("initdb")).args(["-D", DATA, "-U", "user", "--auth=trust", "--no-sync"]));
    server("start");
    sql("CREATE TABLE accounts (name text PRIMARY KEY, euros integer)");
    sql("INSERT INTO accounts VALUES ('ann', 100), ('bob', 50)");
    server("stop");
}

/// What each test does with the same rows, which would fail if another had done it before.
fn spend(name: &str) {
    assert!(Path::new(DATA).join("PG_VERSION").exists());
    server("start");
    assert_eq!(sql("SELECT sum(euros) FROM accounts"), "150");
    sql(&format!("INSERT INTO accounts VALUES ('{name}', 7)"));
    sql("UPDATE accounts SET euros = 0 WHERE name = 'ann'");
    assert_eq!(sql("SELECT sum(euros) FROM accounts"), "57");
}

macro_rules! tests {
    ($($name:ident)*) => {
        $(#[isolated(from = accounts, user = 1000, timeout = "60s")]
        fn $name() {
            spend(stringify!($name));
        })*
    };
}

tests!(one two three four five six seven eight nine ten);

/// The same without a preparation, to compare what it takes.
mod each_by_itself {
    macro_rules! tests {
        ($($name:ident)*) => {
            $(#[belljar::isolated(user = 1000, timeout = "120s")]
            fn $name() {
                super::prepare();
                super::spend(stringify!($name));
            })*
        };
    }
    tests!(one two three four five six seven eight nine ten);
}
