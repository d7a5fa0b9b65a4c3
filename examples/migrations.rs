//! Tests that each change a SQLite file to which two hundred migrations have been applied, once.
//!
//! As plain `#[test]`s, each would apply them to a file of its own, or all would share a copy that somebody made and checked in. sqlite3 must be
//! installed, so that this isn't run by default.

use std::fmt::Write as _;
use std::process::Command;

use belljar::{isolated, prepared};

const FILE: &str = "/var/lib/app.db";

fn sqlite(sql: &str) -> String {
    let output = Command::new("sqlite3").args(["-bail", FILE, sql]).output().expect("sqlite3");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8").trim().to_owned()
}

#[prepared(timeout = "60s")]
fn migrated() {
    let mut migrations =
        "PRAGMA journal_mode = WAL; CREATE TABLE orders (id INTEGER PRIMARY KEY, euros INTEGER);".to_owned();
    for number in 0..200 {
        let _ = write!(
            migrations,
            "ALTER TABLE orders ADD COLUMN c{number}; INSERT INTO orders (euros) VALUES ({number});"
        );
        let _ = write!(migrations, "PRAGMA user_version = {};", number + 1);
    }
    sqlite(&migrations);
}

#[isolated(from = migrated)]
fn orders_are_deleted() {
    assert_eq!(sqlite("SELECT count(*), sum(euros) FROM orders"), "200|19900");
    sqlite("DELETE FROM orders WHERE euros >= 100; VACUUM");
    assert_eq!(sqlite("SELECT count(*) FROM orders"), "100");
}

#[isolated(from = migrated)]
fn the_next_migration_drops_a_column() {
    assert_eq!(sqlite("PRAGMA user_version"), "200");
    sqlite("ALTER TABLE orders DROP COLUMN c7; PRAGMA user_version = 201");
    assert_eq!(sqlite("SELECT count(*) FROM pragma_table_info('orders')"), "201");
}

#[isolated(from = migrated)]
fn a_file_that_is_cut_off_is_noticed() {
    let file = std::fs::File::options().write(true).open(FILE).expect("open");
    let length = file.metadata().expect("stat").len();
    assert_eq!(sqlite("PRAGMA integrity_check"), "ok");
    file.set_len(length / 2).expect("truncate");
    let output = Command::new("sqlite3").args([FILE, "PRAGMA integrity_check"]).output().expect("sqlite3");
    assert_ne!(String::from_utf8_lossy(&output.stdout).trim(), "ok");
}
