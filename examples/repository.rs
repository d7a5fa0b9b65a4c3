//! Tests of what rewrites a git repository, which has a thousand commits. The repository is made once, and each test rewrites its own.
//!
//! As plain `#[test]`s, each would clone it to a directory of its own first, and that takes longer with each commit.

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::{Command, Stdio};

use belljar::{isolated, prepared};

const COMMITS: usize = 1000;

/// Runs git in the repository, and returns what it says.
fn git(arguments: &[&str]) -> String {
    let output = Command::new("git").args(["-C", "/repository"]).args(arguments).output().expect("git");
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8").trim().to_owned()
}

#[prepared(timeout = "60s")]
fn repository() -> std::io::Result<()> {
    std::fs::create_dir("/repository")?;
    git(&["init", "--quiet", "--initial-branch=main"]);
    let mut stream = String::new();
    for number in 0..COMMITS {
        let text = format!("commit {number}\n");
        let person = format!("A U Thor <author@example.org> {number} +0000");
        let size = text.len();
        let _ = write!(stream, "commit refs/heads/main\ncommitter {person}\ndata {size}\n{text}");
        let _ = write!(stream, "M 644 inline file\ndata {size}\n{text}");
    }
    let mut import =
        Command::new("git").args(["-C", "/repository", "fast-import", "--quiet"]).stdin(Stdio::piped()).spawn()?;
    import.stdin.take().expect("piped").write_all(stream.as_bytes())?;
    assert!(import.wait()?.success());
    git(&["reset", "--quiet", "--hard"]);
    Ok(())
}

fn commits() -> usize {
    git(&["rev-list", "--count", "HEAD"]).parse().expect("a number")
}

#[isolated(from = repository)]
fn drops_commits() {
    git(&["reset", "--quiet", "--hard", "HEAD~10"]);
    assert_eq!(commits(), COMMITS - 10);
}

#[isolated(from = repository)]
fn forgets_all() {
    git(&["checkout", "--quiet", "--orphan", "new"]);
    git(&["-c", "user.name=A", "-c", "user.email=a@example.org", "commit", "--quiet", "-m", "all"]);
    git(&["branch", "--quiet", "-D", "main"]);
    git(&["reflog", "expire", "--expire=now", "--all"]);
    git(&["gc", "--quiet", "--prune=now"]);
    assert_eq!(commits(), 1);
}

#[isolated(from = repository)]
fn finds_the_whole_history() {
    assert_eq!(commits(), COMMITS);
    assert_eq!(git(&["show", "HEAD~500:file"]), format!("commit {}", COMMITS - 501));
}
