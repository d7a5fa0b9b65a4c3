//! The programs of a Debian tree in sandboxes whose root is that. `lab/debian` makes it, and `.ci/run` runs this.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::MetadataExt as _;
use std::process::{Command, Stdio};

use belljar::{Change, isolated};
use belljar_tests::{processes, wait_until};

/// What a program of the tree writes.
fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).env("PATH", "/usr/sbin:/usr/bin").output().expect(program);
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

fn adds_a_user() {
    let packages = run("/usr/bin/dpkg", &["-l"]);
    assert!(packages.lines().any(|line| line.starts_with("ii  openssh-server")), "{packages}");
    run("/usr/sbin/useradd", &["--uid", "4711", "web"]);
    assert_eq!(run("/usr/bin/id", &["-u", "web"]), "4711\n");
    let changes = belljar::changes().expect("changes");
    for path in ["/etc/passwd", "/etc/shadow", "/etc/group", "/etc/gshadow"] {
        assert!(changes.contains(&Change::Changed(path.into())), "{changes:?}");
    }
}

#[isolated(root = "../target/debian")]
fn anybody_can_add_users() {
    adds_a_user();
}

#[isolated(root = "../target/debian")]
fn they_are_not_there_next_time() {
    assert!(!fs::read_to_string("/etc/passwd").expect("passwd").contains("4711"));
    adds_a_user();
}

const NFT: &str = "/usr/sbin/nft";

#[isolated(root = "../target/debian")]
fn rules_are_there_in_one() {
    run(NFT, &["add", "table", "inet", "jar"]);
    run(NFT, &["add", "chain", "inet", "jar", "input", "{ type filter hook input priority 0; policy drop; }"]);
    assert!(run(NFT, &["list", "ruleset"]).contains("policy drop"));
}

#[isolated(root = "../target/debian")]
fn rules_are_not_there_in_the_next() {
    assert_eq!(run(NFT, &["list", "ruleset"]), "");
    rules_are_there_and_drop();
}

fn rules_are_there_and_drop() {
    run(NFT, &["add", "table", "inet", "jar"]);
    assert!(run(NFT, &["list", "ruleset"]).contains("jar"));
}

// ---- With several users ----

#[isolated(root = "../target/debian", uids = 65536)]
#[ignore = "needs root, or subordinate ids"]
fn users_can_be_changed_to() {
    run("/usr/sbin/useradd", &["--create-home", "--uid", "4711", "web"]);
    assert_eq!(fs::metadata("/home/web").expect("stat").uid(), 4711);
    assert_eq!(run("/usr/bin/su", &["web", "-c", "id -un; touch /home/web/file"]), "web\n");
    assert_eq!(fs::metadata("/home/web/file").expect("stat").uid(), 4711);
    run("/usr/bin/chown", &["web:web", "/srv"]);
    // And back: this program is root's, and has the bit for that.
    assert_eq!(run("/usr/bin/su", &["web", "-c", "su nobody -c true < /dev/null || echo refused"]), "refused\n");
}

#[isolated(root = "../target/debian", uids = 65536, timeout = "1m")]
#[ignore = "needs root, or subordinate ids"]
fn servers_drop_their_privileges() {
    let sshd: u32 = run("/usr/bin/id", &["-u", "sshd"]).trim().parse().expect("a number");
    run("/usr/bin/mkdir", &["-p", "/run/sshd"]);
    run("/usr/bin/ssh-keygen", &["-A"]);
    let mut server = Command::new("/usr/sbin/sshd").args(["-D", "-e"]).stderr(Stdio::piped()).spawn().expect("sshd");
    let errors = BufReader::new(server.stderr.take().expect("stderr")).lines();
    // It says that it listens.
    assert!(errors.map_while(Result::ok).any(|line| line.contains("listening on")));
    let mut banner = String::new();
    let mut client = TcpStream::connect("127.0.0.1:22").expect("connect");
    BufReader::new(&client).read_line(&mut banner).expect("a banner");
    assert!(banner.starts_with("SSH-2.0-OpenSSH"), "{banner}");
    client.write_all(b"SSH-2.0-belljar\r\n").expect("write");
    let users = || {
        let user = |pid: u32| {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
            status.lines().find_map(|line| line.strip_prefix("Uid:"))?.split_whitespace().next()?.parse().ok()
        };
        processes().into_iter().filter_map(user).collect::<Vec<_>>()
    };
    // One process of the server talks to the client, as a user who may do nothing.
    wait_until(|| users().contains(&sshd));
    server.kill().and_then(|()| server.wait()).expect("kill");
}
