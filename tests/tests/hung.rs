//! A host on which something is mounted that does not answer: nobody waits for it.
//!
//! The host is a sandbox. In it, this binary runs again.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, IoSlice, IoSliceMut, Read as _, Write as _};
use std::os::fd::{AsRawFd as _, FromRawFd as _, RawFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use belljar::isolated;
use belljar_tests::{
    Run, body, describe, is_real_root, refusal_of_copies, refuse, run, run_body, this_binary, wait_until,
};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::mount::{MsFlags, mount};
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use nix::unistd::{getegid, geteuid, pipe2};

belljar_tests::bodies!();

/// Mounts a FUSE file system at `point`, whose server is whoever reads the file that is returned. Nobody does, so that it never answers.
fn mount_fuse(point: &str) -> File {
    let server = File::options().read(true).write(true).open("/dev/fuse").expect("/dev/fuse");
    let options = format!(
        "fd={},rootmode=40000,user_id={},group_id={}",
        server.as_raw_fd(),
        geteuid().as_raw(),
        getegid().as_raw()
    );
    fs::create_dir_all(point).expect("mkdir");
    mount(Some("silent"), point, Some("fuse.silent"), MsFlags::empty(), Some(options.as_str())).expect("mount");
    server
}

/// Whether somebody waits for one who [takes requests](take_requests).
static IS_WAITED_FOR: AtomicBool = AtomicBool::new(false);

/// Has such a file system be served by somebody who takes all that he is asked, and answers that he is there, and nothing else. Whoever has
/// asked can't be killed until the server is gone. See fuse(4) on FUSE_INIT.
fn take_requests(mut server: File) {
    thread::spawn(move || {
        const INIT: u32 = 26;
        let mut request = vec![0; 1 << 20];
        while let Ok(40..) = server.read(&mut request) {
            let number = |at: usize| u32::from_ne_bytes(request[at..at + 4].try_into().expect("four bytes"));
            if number(4) == INIT {
                let (head, body) = (16_u32, 64_u32);
                let mut answer = [(head + body).to_ne_bytes(), [0; 4]].concat();
                answer.extend_from_slice(&request[8..16]);
                // The version that the kernel has, a buffer of a page, and nothing else.
                answer.extend_from_slice(&request[40..48]);
                answer.resize((head + body) as usize, 0);
                answer[16 + 20..][..4].copy_from_slice(&4096_u32.to_ne_bytes());
                server.write_all(&answer).expect("write");
            } else {
                IS_WAITED_FOR.store(true, Ordering::Relaxed);
            }
        }
    });
}

mod roots {
    use std::fs;

    use belljar::isolated;
    use belljar_tests::body;

    #[body]
    #[isolated]
    fn empty() {}

    #[body]
    #[isolated(root = "overlay")]
    fn copy() {
        super::has_files();
        super::has_read_only_proc();
        fs::write("/var/lib/written", "x").expect("write");
    }

    #[body]
    #[isolated(root = "/srv/tree")]
    fn copy_of_a_directory() {
        assert_eq!(fs::read_to_string("/a").expect("read"), "a");
    }

    #[body]
    #[isolated(net)]
    fn hosts_tree() {
        super::has_files();
    }

    #[body]
    #[isolated(bind = ["/var/lib"])]
    fn bind() {
        super::has_files();
        super::has_read_only_proc();
    }
}

/// A proc of the host, below a directory.
const CHROOT: &str = "/var/lib/chroot/proc";

fn has_files() {
    assert_eq!(fs::read_to_string("/var/lib/kept").expect("read"), "kept");
}

/// What the kernel makes of the host's is read-only like all else of the host.
fn has_read_only_proc() {
    let score = format!("{CHROOT}/1/oom_score_adj");
    if fs::exists(&score).expect("stat") {
        let error = File::options().write(true).open(&score).expect_err("read-only");
        assert_eq!(error.kind(), io::ErrorKind::ReadOnlyFilesystem);
    }
}

/// Runs tests with each kind of root. Who is kept waiting is killed.
fn run_roots() -> Run {
    run_here("roots::*", &[])
}

/// Runs these tests on the host that this is, with these variables in the environment.
fn run_here(tests: &str, environment: &[(&str, &str)]) -> Run {
    fs::create_dir_all("/var/lib").expect("mkdir");
    fs::write("/var/lib/kept", "kept").expect("write");
    fs::create_dir_all("/srv/tree").expect("mkdir");
    fs::write("/srv/tree/a", "a").expect("write");
    let mut command = Command::new("timeout");
    command
        .args(["--foreground", "--signal=KILL", "60"])
        .arg(this_binary().get_program())
        .args(["body", tests, "--exact"])
        .envs(environment.iter().copied())
        // By this, the harness would look into the home directory.
        .env_remove("TERM");
    let run = run(&mut command);
    assert!(matches!(run.status.code(), Some(0 | 101)), "{}: {}", describe(run.status), run.output);
    run
}

#[track_caller]
fn check(run: &Run) {
    assert!(run.output.contains("test result: ok. 5 passed; 0 failed;"), "{}", run.output);
}

/// Below the home directory, where programs are, in a directory that is copied, and beside what is mounted.
#[body]
#[isolated]
fn has_silent_mounts() {
    let points = ["/root/remote", "/var/lib/silent", "/media/disk", "/srv/tree/below", "/run/user/1000/doc"];
    let _servers = points.map(mount_fuse);
    check(&run_roots());
}

#[body]
#[isolated]
fn has_dead_mounts() {
    drop(["/root/remote", "/var/lib/dead", "/srv/tree/below"].map(mount_fuse));
    check(&run_roots());
}

mod named {
    use belljar::isolated;
    use belljar_tests::body;

    #[body]
    #[isolated(bind = ["/mnt/tools/share"])]
    fn bind() {}

    #[body]
    #[isolated(bind = ["/srv/link:/srv/given:rw"])]
    fn writable_bind() {}

    #[body]
    #[isolated(net, bind = ["/srv/link"])]
    fn bind_in_the_hosts_tree() {}

    #[body]
    #[isolated(root = "/mnt/tools/root")]
    fn root() {}
}

const DIRECTORIES: [&str; 2] = ["/mnt/tools", "/mnt/home"];

#[body]
#[isolated]
fn has_silent_directories() {
    let _servers = DIRECTORIES.map(mount_fuse);
    check_directories();
}

/// Not even SIGKILL ends who looks at these. The zygote ends all the same, and by itself: nobody can kill it here.
#[body]
#[isolated]
fn has_directories_that_keep_who_looks() {
    DIRECTORIES.map(mount_fuse).into_iter().for_each(take_requests);
    refuse(libc::SYS_pidfd_send_signal, Some((1, libc::SIGKILL)), Errno::EPERM);
    check_directories();
}

/// The directories that the environment names. Only those tests fail that name what lies there themselves.
fn check_directories() {
    fs::create_dir_all("/srv").and_then(|()| symlink("/mnt/tools/bin", "/srv/link")).expect("a link");
    let environment = [
        ("PATH", "/usr/local/bin:/usr/bin:/bin:/mnt/tools:/mnt/tools/bin:/srv/link:/srv/link/more"),
        ("HOME", "/mnt/home/me"),
        ("TMPDIR", "/mnt/home/me/tmp"),
        ("XDG_RUNTIME_DIR", "/mnt/home"),
        ("CARGO_HOME", "/mnt/home/me/.cargo"),
    ];
    check(&run_here("roots::*", &environment));
    let run = run_here("named::*", &environment);
    assert!(run.output.contains("test result: FAILED. 0 passed; 4 failed;"), "{}", run.output);
    assert_eq!(run.output.matches("whoever serves the file system there does not answer").count(), 4, "{}", run.output);
    for path in ["/mnt/tools/share", "/srv/link", "/mnt/tools/root"] {
        assert!(run.output.contains(path), "{}", run.output);
    }
}

/// The files that the environment names. No test runs without them, nor does any wait for them; profiles are left out.
#[body]
#[isolated]
fn has_silent_files() {
    DIRECTORIES.map(mount_fuse).into_iter().for_each(take_requests);
    let profiles = run_here("roots::empty*", &[("LLVM_PROFILE_FILE", "/mnt/tools/%p.profraw")]);
    assert!(profiles.output.contains("test result: ok. 1 passed; 0 failed;"), "{}", profiles.output);
    fs::create_dir_all("/srv").and_then(|()| symlink("/mnt/home/report", "/srv/report")).expect("a link");
    let files = [("BELLJAR_TRACE", "/mnt/tools/trace.json"), ("BELLJAR_REPORT", "json:/srv/report")];
    let run = run_here("roots::empty*", &files);
    assert!(run.failed(), "{}", run.output);
    for (name, path) in [("BELLJAR_TRACE", "/mnt/tools/trace.json"), ("BELLJAR_REPORT", "/srv/report")] {
        let why = "which can't be used: whoever serves the file system there does not answer";
        assert!(run.output.contains(&format!("{name} names the file `{path}`, {why}")), "{}", run.output);
    }
}

mod stuck {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[body]
    #[isolated(bind = ["/srv/holder:/srv/holder:rw"])]
    fn waits_for_a_server_outside() {
        let server = mount_fuse("/mnt/stuck");
        let holder = UnixStream::connect("/srv/holder").expect("connect");
        let rights = [server.as_raw_fd()];
        sendmsg::<()>(
            holder.as_raw_fd(),
            &[IoSlice::new(b"x")],
            &[ControlMessage::ScmRights(&rights)],
            MsgFlags::empty(),
            None,
        )
        .expect("sendmsg");
        drop(server);
        let _ = fs::metadata("/mnt/stuck/file");
    }
}

#[expect(unsafe_code, reason = "nix returns the descriptors of a message as numbers")]
fn owned(fd: RawFd) -> File {
    // SAFETY: it came with a message just now, and nobody else knows of it.
    unsafe { File::from_raw_fd(fd) }
}

/// A body waits in the kernel for a server that is no process of its sandbox, and SIGKILL does not end it.
#[body]
#[isolated]
fn has_bodies_that_can_not_be_killed() {
    fs::create_dir_all("/srv").expect("mkdir");
    let listener = UnixListener::bind("/srv/holder").expect("bind");
    thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = stream.expect("accept");
            let (mut byte, mut space) = ([0], nix::cmsg_space!([RawFd; 1]));
            let mut bytes = [IoSliceMut::new(&mut byte)];
            let received = recvmsg::<()>(stream.as_raw_fd(), &mut bytes, Some(&mut space), MsgFlags::empty());
            // Who was killed before has sent none.
            if let Some(ControlMessageOwned::ScmRights(fds)) =
                received.expect("recvmsg").cmsgs().expect("rights").next()
            {
                take_requests(owned(fds[0]));
            }
        }
    });
    // A body whose time was up before it waited shows nothing.
    let mut runs = (0..6).map(|doubled| run_here("stuck::*", &[("BELLJAR_TIMEOUT", &format!("{}s", 1 << doubled))]));
    let run = runs.find(|_| IS_WAITED_FOR.load(Ordering::Relaxed)).expect("it waits in time");
    assert!(run.failed() && run.output.contains("s, the timeout that BELLJAR_TIMEOUT gives"), "{}", run.output);
    assert!(run.output.contains("has processes that can't be killed"), "{}", run.output);
}

/// Mounts an automount point. What it tells whoever is to mount something can be read from the file that is returned.
fn mount_autofs(point: &str, kind: &str, daemon: u32) -> File {
    let (told, tell) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK).expect("pipe2");
    let options = format!("fd={},pgrp={daemon},minproto=5,maxproto=5,{kind}", tell.as_raw_fd());
    fs::create_dir_all(point).expect("mkdir");
    mount(Some("nowhere"), point, Some("autofs"), MsFlags::empty(), Some(options.as_str())).expect("mount");
    told.into()
}

/// Nobody mounts anything there, and who looks there waits for that without end.
#[body]
#[isolated(user = "host")]
fn has_automount_points() {
    // Its own processes would be let through.
    let mut daemon = Command::new("sleep").arg("1000").process_group(0).spawn().expect("sleep");
    let points = ["/mnt/direct", "/var/lib/direct", "/root/direct", "/srv/tree/direct", "/run/user/1000/direct"];
    let direct = points.map(|point| mount_autofs(point, "direct", daemon.id()));
    let indirect = mount_autofs("/mnt/indirect", "indirect", daemon.id());
    let path = "/usr/local/bin:/usr/bin:/bin:/mnt/direct:/mnt/direct/bin:/mnt/indirect/host/bin";
    check(&run_here("roots::*", &[("PATH", path), ("TMPDIR", "/mnt/direct/tmp")]));
    let has_told = |mut pipe: &File| pipe.read(&mut [0; 1024]).is_ok_and(|length| length > 0);
    assert_eq!(direct.each_ref().map(has_told), [false; 5]);
    assert!(!has_told(&indirect));
    // But whoever looks there is told of.
    for (looked_at, pipe) in [("/mnt/direct/bin", &direct[0]), ("/mnt/indirect/host", &indirect)] {
        let mut ls = Command::new("ls").arg(looked_at).spawn().expect("ls");
        wait_until(|| has_told(pipe));
        let status = ls.kill().and_then(|()| ls.wait()).expect("kill");
        assert_eq!(status.signal(), Some(libc::SIGKILL));
    }
    daemon.kill().and_then(|()| daemon.wait()).expect("kill");
}

/// A proc, in which to read `kmsg` waits for the kernel to say something, as a chroot has it; and one file of it elsewhere.
#[body]
#[isolated]
fn has_a_proc_below() {
    let file = "/var/lib/version";
    fs::create_dir_all("/var/lib").and_then(|()| fs::write(file, "")).expect("write");
    mount(Some("/proc/version"), file, None::<&str>, MsFlags::MS_BIND, None::<&str>).expect("mount");
    for proc in [CHROOT, "/srv/tree/proc"] {
        fs::create_dir_all(proc).expect("mkdir");
        mount(Some("proc"), proc, Some("proc"), MsFlags::empty(), None::<&str>).expect("mount");
        let over = format!("{proc}/sys");
        mount(Some("tmpfs"), over.as_str(), Some("tmpfs"), MsFlags::empty(), None::<&str>).expect("mount");
    }
    check(&run_roots());
}

/// A large file beside a mount point: nobody reads it. The memory for that is not there.
#[body]
#[isolated]
fn has_a_large_file() {
    fs::create_dir_all("/var/lib/mounted").expect("mkdir");
    mount(Some("tmpfs"), "/var/lib/mounted", Some("tmpfs"), MsFlags::empty(), Some("size=1m")).expect("mount");
    let file = File::create("/var/lib/swap.img").expect("create");
    file.set_len(1 << 44).expect("a hole");
    check(&run_roots());
}

/// A mount point whose name is no UTF-8, and such a file, which is large too.
#[body]
#[isolated]
fn has_odd_names() {
    for directory in ["/var/lib", "/srv/tree"].map(Path::new) {
        let [point, file] = [&b"Z\xfcrich"[..], b"\xffswap\n"].map(|name| directory.join(OsStr::from_bytes(name)));
        fs::create_dir_all(&point).expect("mkdir");
        mount(Some("tmpfs"), &point, Some("tmpfs"), MsFlags::empty(), Some("size=1m")).expect("mount");
        File::create(file).and_then(|file| file.set_len(1 << 44)).expect("a hole");
    }
    check(&run_roots());
}

/// Runs these hosts.
#[track_caller]
fn check_hosts(hosts: &[&str]) {
    if refusal_of_copies().is_some() {
        return;
    }
    for host in hosts {
        let run = run_body(host);
        assert!(run.passed(), "{}", run.output);
    }
}

/// On many hosts anybody may open the device; where only root may, root's run shows this.
#[test]
fn file_systems_that_do_not_answer() {
    match File::open("/dev/fuse") {
        Ok(_) => check_hosts(&[
            "has_silent_mounts",
            "has_silent_directories",
            "has_directories_that_keep_who_looks",
            "has_silent_files",
            "has_bodies_that_can_not_be_killed",
            "has_dead_mounts",
        ]),
        Err(error) if geteuid().is_root() => panic!("/dev/fuse: {error}"),
        Err(error) => println!("not tried: /dev/fuse: {error}"),
    }
}

#[test]
fn what_is_mounted_is_not_read() {
    check_hosts(&["has_a_proc_below", "has_a_large_file"]);
}

#[test]
fn names_need_not_be_text() {
    check_hosts(&["has_odd_names"]);
}

/// Only real root can mount them.
#[test]
fn automount_points_are_let_be() {
    let is_there = fs::read_to_string("/proc/filesystems").expect("filesystems").contains("\tautofs\n");
    match is_real_root() && is_there {
        true => check_hosts(&["has_automount_points"]),
        false => println!("not tried"),
    }
}
