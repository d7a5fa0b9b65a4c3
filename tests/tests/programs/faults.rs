//! Programs of others: what they do when their calls fail. They keep what they have promised, and say so.

use std::fs;
use std::process::Command;

use belljar::{ActiveFault, Ended, Fault, Sweep, isolated};

/// Runs a script. Whether it succeeded, and what it has printed.
fn sh(script: &str) -> (bool, String) {
    let output = Command::new("sh").args(["-ec", script]).env("HOME", "/tmp").output().expect("sh");
    let [out, err] = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    (output.status.success(), out + &err)
}

/// What a script prints that succeeds.
fn succeed(script: &str) -> String {
    let (is_done, text) = sh(script);
    assert!(is_done, "{text}");
    text
}

/// All ways to rename what has a name like this.
fn no_rename(path: &str) -> [ActiveFault; 3] {
    let fault = |call| Fault::new(call).errno(libc::EIO).path(path).start().expect("start");
    ["rename", "renameat", "renameat2"].map(fault)
}

fn hits(faults: &[ActiveFault]) -> u64 {
    faults.iter().map(ActiveFault::hits).sum()
}

// ---- git(1) ----

const COMMIT: &str =
    "cd /repository; date +%N >> file; git add file; git -c user.name=a -c user.email=a commit -qm next";

fn repository() {
    succeed("git init -q /repository");
    succeed(COMMIT);
}

/// The repository is whole, and has so many commits.
fn commits() -> usize {
    succeed("cd /repository; git fsck --strict; git log --format=%H").lines().filter(|line| line.len() == 40).count()
}

#[isolated]
fn git_says_that_a_rename_has_failed() {
    repository();
    let faults = no_rename("/repository/.git/**");
    let (is_done, text) = sh(COMMIT);
    assert!(!is_done && hits(&faults) > 0, "{text}");
    drop(faults);
    assert_eq!(commits(), 1);
    succeed(COMMIT);
    assert_eq!(commits(), 2);
}

/// Whichever rename fails, or is the last call of all.
#[isolated]
fn git_keeps_a_repository_whole() {
    repository();
    let commit = || {
        let (is_done, text) = sh(COMMIT);
        println!("{text}");
        if is_done { Ok(()) } else { Err("the commit failed") }
    };
    let check = |ended| {
        // What a killed program has locked stays so.
        succeed("rm -f /repository/.git/index.lock /repository/.git/HEAD.lock /repository/.git/refs/heads/*.lock");
        let is_kept = if ended == Ended::Returned { commits() == 2 } else { commits() <= 2 };
        assert!(is_kept, "{}", commits());
    };
    let call = if cfg!(target_arch = "x86_64") { "rename" } else { "renameat" };
    for fault in [Fault::new(call).errno(libc::EIO), Fault::new(call).kill()] {
        let swept = Sweep::new(fault.path("/repository/**")).state("/repository").check(check).run(commit);
        println!("{swept:?}");
    }
}

// ---- dpkg(1) ----

const INSTALL: &str = "dpkg --admindir=/db --instdir=/target --log=/dev/null --force-bad-path -i /app.deb";

fn package() {
    succeed(
        "mkdir -p /app/DEBIAN /app/usr/share/app /db/updates /db/info /db/triggers /target; touch /db/status
        printf 'Package: app\nVersion: 1\nArchitecture: all\nMaintainer: a <a@b>\nDescription: a\n' > /app/DEBIAN/control
        echo one > /app/usr/share/app/file; dpkg-deb --root-owner-group --build /app /app.deb",
    );
}

fn state() -> String {
    sh("dpkg-query --admindir=/db --showformat='${db:Status-Status}' --show app").1
}

#[isolated]
fn dpkg_installs_nothing_by_halves() {
    package();
    let faults = no_rename("/target/**");
    let (is_done, text) = sh(INSTALL);
    assert!(!is_done && hits(&faults) > 0 && text.contains("Input/output error"), "{text}");
    drop(faults);
    assert_ne!(state(), "installed");
    assert!(!fs::exists("/target/usr/share/app/file").expect("stat"));
    succeed(INSTALL);
    assert_eq!(
        (state(), fs::read_to_string("/target/usr/share/app/file").expect("read")),
        ("installed".into(), "one\n".into())
    );
}

// ---- sqlite3(1) ----

/// Two rows, or none.
const INSERT: &str = "sqlite3 -bail /data/db 'begin; insert into t values (1); insert into t values (2); commit;'";

fn database(mode: &str) {
    fs::create_dir("/data").expect("mkdir");
    succeed(&format!("sqlite3 /data/db 'pragma journal_mode={mode}; pragma synchronous=full; create table t (n);'"));
}

/// The database is whole, and has so many rows.
fn rows() -> usize {
    let text = succeed("sqlite3 -bail /data/db 'pragma integrity_check; select count(*) from t;'");
    let (whole, count) = text.split_once('\n').expect("two lines");
    assert_eq!(whole, "ok");
    count.trim().parse().expect("a number")
}

#[isolated]
fn sqlite_says_that_a_sync_has_failed() {
    database("delete");
    let fault = Fault::syncing().errno(libc::EIO).path("/data/*").start().expect("start");
    let (is_done, text) = sh(INSERT);
    assert!(!is_done && text.contains("disk I/O error") && fault.hits() > 0, "{text}");
    drop(fault);
    assert_eq!(rows(), 0);
    succeed(INSERT);
    assert_eq!(rows(), 2);
}

/// Whichever write or sync fails, and if the power goes.
fn sweep_sqlite(mode: &str) {
    database(mode);
    let insert = || {
        let (is_done, text) = sh(INSERT);
        println!("{text}");
        if is_done { Ok(()) } else { Err("the transaction failed") }
    };
    let check = |ended| {
        let rows = rows();
        assert!(rows == 2 || rows == 0 && ended != Ended::Returned, "{rows} rows");
    };
    let failures = [
        Fault::writing().errno(libc::ENOSPC),
        Fault::writing().short(1000),
        Fault::writing().kill(),
        Fault::syncing().errno(libc::EIO),
        Fault::syncing().kill(),
    ];
    for fault in failures {
        let swept = Sweep::new(fault.path("/data/*")).state("/data").power_cut().check(check).run(insert);
        println!("{swept:?}");
    }
}

#[isolated]
fn sqlite_loses_no_rows() {
    sweep_sqlite("delete");
}

#[isolated]
fn sqlite_loses_no_rows_of_a_log() {
    sweep_sqlite("wal");
}

// ---- Go ----

const PROGRAM: &str = r#"
package main

import ("fmt"; "os"; "runtime"; "sync"; "sync/atomic"; "syscall"; "errors")

func main() {
    var failed int64
    var wait sync.WaitGroup
    for i := 0; i < 8; i++ {
        wait.Add(1)
        go func(i int) {
            runtime.LockOSThread()
            defer wait.Done()
            file, err := os.Create(fmt.Sprintf("/data/%d", i))
            if errors.Is(err, syscall.EMFILE) { fmt.Println("not opened"); return }
            for j := 0; j < 50; j++ {
                if errors.Is(file.Sync(), syscall.EIO) { atomic.AddInt64(&failed, 1) }
                _, _, errno := syscall.RawSyscall(syscall.SYS_FSYNC, file.Fd(), 0, 0)
                if errno == syscall.EIO { atomic.AddInt64(&failed, 1) }
            }
        }(i)
    }
    wait.Wait()
    fmt.Println("failed:", failed)
}
"#;

/// A program that has many threads, no C library, and signals of its own.
#[isolated]
fn a_static_program_in_go() {
    fs::create_dir("/data").expect("mkdir");
    fs::write("/tmp/main.go", PROGRAM).expect("write");
    succeed("cd /tmp; CGO_ENABLED=0 GO111MODULE=off GOCACHE=/tmp/cache go build -o /tmp/program main.go");
    assert_eq!(succeed("/tmp/program"), "failed: 0\n");
    let opening = Fault::opening().errno(libc::EMFILE).path("/data/*").nth(3).start().expect("start");
    assert_eq!(succeed("/tmp/program"), "not opened\nfailed: 0\n");
    assert_eq!((opening.hits(), opening.calls()), (1, 8));
    drop(opening);
    let fault = Fault::syncing().errno(libc::EIO).path("/data/*").start().expect("start");
    assert_eq!(succeed("/tmp/program"), "failed: 800\n");
    assert_eq!(fault.hits(), 800);
    drop(fault);
    let _fault = Fault::syncing().errno(libc::EIO).path("/data/*").every(4).start().expect("start");
    assert_eq!(succeed("/tmp/program"), "failed: 200\n");
}

/// A busybox that is statically linked has no C library to ask.
#[isolated]
fn a_static_busybox() {
    fs::create_dir("/data").expect("mkdir");
    fs::write("/data/a", "").expect("write");
    let maps = Command::new("busybox").args(["cat", "/proc/self/maps"]).output().expect("busybox").stdout;
    assert!(!String::from_utf8_lossy(&maps).contains("/libc.so"), "busybox is not linked statically");
    let busybox = |words: &[&str]| Command::new("busybox").args(words).status().expect("busybox").success();
    let sync = Fault::new("fsync").errno(libc::EIO).path("/data/*").start().expect("start");
    let copy = ["dd", "if=/usr/bin/busybox", "of=/data/a", "count=1", "conv=fsync"];
    assert!(!busybox(&copy));
    assert_eq!(sync.hits(), 1);
    drop(sync);
    assert!(busybox(&copy));
    let rename = Fault::new("rename").errno(libc::EIO).path("/data/b").start().expect("start");
    assert!(!busybox(&["mv", "/data/a", "/data/b"]));
    assert_eq!(rename.hits(), 1);
    let kill = Fault::writing().kill().path("/data/*").start().expect("start");
    assert!(!busybox(&["dd", "if=/usr/bin/busybox", "of=/data/c", "count=1"]));
    assert_eq!(kill.hits(), 1);
}
