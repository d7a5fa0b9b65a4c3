//! Namespaces as values.

use std::net::TcpListener;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::{env, fs, panic, thread};

use belljar::isolated;
use belljar::ns::{IdRange, Kind, Namespace};
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::Mode;
use nix::unistd::{gethostname, getuid, mkfifo, sethostname};

fn current(kind: Kind) -> Namespace {
    Namespace::current(kind).expect("a namespace")
}

fn fresh(kind: Kind) -> Namespace {
    Namespace::fresh(kind).unwrap_or_else(|error| panic!("{error}"))
}

#[isolated]
fn they_are_what_proc_shows() {
    for kind in Kind::ALL {
        let link = fs::read_link(Path::new("/proc/self/ns").join(kind.name())).expect("a link");
        let own = current(kind);
        assert_eq!((own.kind(), own.to_string()), (kind, link.display().to_string()));
        assert!(link.display().to_string().contains(&own.identity().inode.to_string()));
        assert_eq!(Namespace::of(1, kind).expect("init's"), own);
    }
}

#[isolated]
fn fresh_ones_are_nobodys() {
    for kind in Kind::ALL {
        let (one, other) = (fresh(kind), fresh(kind));
        assert_eq!([one.kind(), other.kind()], [kind; 2]);
        assert!(one != other && one != current(kind), "{kind:?}");
    }
    // Whoever made them ends.
    belljar_tests::wait_until(|| belljar_tests::processes().len() == 2);
}

#[isolated]
fn each_has_an_owner() {
    let user = current(Kind::User);
    for kind in Kind::ALL {
        assert_eq!(current(kind).owner().is_ok(), kind != Kind::User && kind != Kind::Time, "{kind:?}");
        let owner = fresh(kind).owner().expect("an owner");
        assert_eq!((owner.kind(), &owner), (Kind::User, &user));
    }
    // What lies above is not told.
    let error = current(Kind::User).owner().expect_err("the host's");
    assert_eq!(error.errno(), Errno::EPERM as i32);
    assert!(error.to_string().contains("EPERM") && error.to_string().contains("above the caller's own"), "{error}");
}

#[isolated]
fn some_have_parents() {
    for kind in [Kind::Pid, Kind::User] {
        assert_eq!(fresh(kind).parent().expect("a parent"), current(kind));
        assert_eq!(current(kind).parent().expect_err("the host's").errno(), Errno::EPERM as i32);
    }
    for kind in Kind::ALL.into_iter().filter(|kind| ![Kind::Pid, Kind::User].contains(kind)) {
        let error = fresh(kind).parent().expect_err("it has none").to_string();
        assert!(error.contains("only pid and user namespaces"), "{error}");
    }
}

#[isolated]
fn user_namespaces_have_makers_and_maps() {
    let user = fresh(Kind::User);
    assert_eq!(user.owner_uid().expect("an owner"), 0);
    let one = |outside| vec![IdRange { inside: 0, outside, count: 1 }];
    assert_eq!((user.uid_map().expect("a map"), user.gid_map().expect("a map")), (one(0), one(0)));
    let own = fs::read_to_string("/proc/self/uid_map").expect("a map");
    let outside = own.split_whitespace().nth(1).and_then(|id| id.parse().ok()).expect("a number");
    assert_eq!(current(Kind::User).uid_map().expect("a map"), one(outside));
    for error in
        [fresh(Kind::Net).owner_uid().expect_err("no user namespace"), current(Kind::Uts).uid_map().expect_err("none")]
    {
        assert!(error.to_string().contains("user namespaces only"), "{error}");
    }
}

// ---- Entering ----

#[isolated]
fn networks_can_be_entered() {
    let net = fresh(Kind::Net);
    let here = TcpListener::bind("0.0.0.0:80").expect("bind");
    TcpListener::bind("0.0.0.0:80").expect_err("it is taken");
    let (there, entered) = net.enter(|| (TcpListener::bind("0.0.0.0:80"), current(Kind::Net))).expect("entered");
    there.expect("the port is free there");
    assert!(entered == net && current(Kind::Net) != net);
    drop(here);
}

#[isolated]
fn others_can_be_entered() {
    let cwd = env::current_dir().expect("cwd");
    let uts = fresh(Kind::Uts);
    uts.enter(|| sethostname("elsewhere")).expect("entered").expect("sethostname");
    assert_eq!(gethostname().expect("gethostname"), "localhost");
    assert_eq!(uts.enter(|| gethostname().expect("gethostname")).expect("entered"), "elsewhere");

    let mounts = fresh(Kind::Mount);
    let mounted = mounts.enter(|| {
        let none: Option<&str> = None;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
        mount(Some("tmpfs"), "/mnt", Some("tmpfs"), MsFlags::empty(), none)?;
        fs::write("/mnt/file", "").map_err(|_| Errno::EIO)
    });
    mounted.expect("entered").expect("mount");
    assert!(!Path::new("/mnt/file").exists());
    assert!(mounts.enter(|| Path::new("/mnt/file").exists()).expect("entered"));
    // The other threads stay where they are.
    assert_eq!(env::current_dir().expect("cwd"), cwd);

    for kind in [Kind::Cgroup, Kind::Ipc] {
        let namespace = fresh(kind);
        assert!(namespace.enter(|| current(kind) == namespace).expect("entered"));
        assert!(current(kind) != namespace);
    }
}

#[isolated]
fn processes_begin_in_pid_namespaces() {
    let pids = fresh(Kind::Pid);
    let run = |script: &str| {
        let output = pids.enter(|| Command::new("sh").args(["-c", script]).output()).expect("entered").expect("sh");
        String::from_utf8(output.stdout).expect("text")
    };
    // The first of its processes is ours.
    assert_eq!(run("echo $$"), "2\n");
    assert_eq!(run("echo $$"), "3\n");
    // They end with it.
    let child = pids.enter(|| Command::new("sleep").arg("1000").stdout(Stdio::null()).spawn());
    let mut child = child.expect("entered").expect("sleep");
    drop(pids);
    assert!(!child.wait().expect("wait").success());
}

#[isolated]
fn some_are_for_processes_with_one_thread() {
    for kind in [Kind::User, Kind::Time] {
        let error = fresh(kind).enter(|| unreachable!()).expect_err("refused");
        assert!(error.to_string().contains("only processes with one thread"), "{error}");
        assert!([Errno::EINVAL as i32, Errno::EUSERS as i32].contains(&error.errno()));
    }
}

#[isolated]
fn panics_come_through() {
    let uts = fresh(Kind::Uts);
    let payload = panic::catch_unwind(|| uts.enter(|| panic!("on purpose"))).expect_err("a panic");
    assert_eq!(payload.downcast_ref::<&str>(), Some(&"on purpose"));
}

#[isolated]
fn the_calling_thread_stays() {
    let (net, own) = (fresh(Kind::Net), current(Kind::Net));
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..20 {
                    assert!(net.enter(|| current(Kind::Net) == net).expect("entered"));
                    assert!(current(Kind::Net) == own);
                }
            });
        }
    });
}

// ---- Where they come from, and what they hold ----

#[isolated]
fn files_stand_for_them() {
    // This is what `ip netns add` does.
    let net = fresh(Kind::Net);
    fs::write("/run/blue", "").expect("write");
    let (file, none) = (format!("/proc/self/fd/{}", net.as_fd().as_raw_fd()), None::<&str>);
    mount(Some(&*file), "/run/blue", none, MsFlags::MS_BIND, none).expect("mount");
    let blue = Namespace::open("/run/blue").expect("a namespace");
    assert!(blue.kind() == Kind::Net && blue == net);
    drop(net);
    blue.enter(|| assert!(TcpListener::bind("0.0.0.0:80").is_ok())).expect("entered");
    umount2("/run/blue", MntFlags::MNT_DETACH).expect("umount");
    // This one still refers to it.
    assert!(blue.enter(|| current(Kind::Net) == blue).expect("entered"));
    mkfifo("/run/pipe", Mode::from_bits_truncate(0o600)).expect("mkfifo");
    assert!(Namespace::open("/run/pipe").is_err());
    for (path, words) in
        [("/etc/hosts", "something else"), ("/proc/4711/ns/net", "no such process"), ("/nowhere", "ENOENT")]
    {
        let error = Namespace::open(path).expect_err(path).to_string();
        assert!(error.contains(path) && error.contains(words), "{error}");
    }
}

/// While one is there, nobody else holds the descriptors of this process.
#[isolated]
fn other_descriptors_are_let_go_of() {
    let (reader, writer) = UnixStream::pair().expect("a pair");
    let pids = fresh(Kind::Pid);
    drop(writer);
    assert_eq!(std::io::read_to_string(reader).expect("the end"), "");
    drop(pids);
}

#[isolated]
fn standard_streams_are_not_needed() {
    use std::os::fd::{FromRawFd as _, OwnedFd};
    #[expect(unsafe_code, reason = "there is no other way to close it")]
    // SAFETY: nothing here uses the standard input from now on.
    drop(unsafe { OwnedFd::from_raw_fd(0) });
    for kind in Kind::ALL {
        fresh(kind);
    }
    let processes = fresh(Kind::Pid);
    let status = processes.enter(|| Command::new("true").stdin(Stdio::null()).status()).expect("setns");
    assert!(status.expect("a process").success());
}

#[isolated(user = 1000)]
fn rights_are_needed() {
    fresh(Kind::User);
    for kind in Kind::ALL.into_iter().filter(|kind| *kind != Kind::User) {
        let error = Namespace::fresh(kind).expect_err("refused").to_string();
        assert!(error.contains("EPERM") && error.contains("CAP_SYS_ADMIN"), "{kind:?}: {error}");
    }
    let error = current(Kind::Uts).enter(|| unreachable!()).expect_err("refused").to_string();
    assert!(error.contains("CAP_SYS_ADMIN"), "{error}");
}

/// Outside of sandboxes it is the same.
#[test]
fn outside_of_sandboxes() {
    if getuid().is_root() {
        let net = fresh(Kind::Net);
        assert!(net.enter(|| current(Kind::Net) == net).expect("entered"));
    } else {
        assert!(Namespace::fresh(Kind::Net).expect_err("refused").to_string().contains("CAP_SYS_ADMIN"));
    }
    let user = fresh(Kind::User);
    assert_eq!(user.uid_map().expect("a map"), [IdRange { inside: 0, outside: getuid().as_raw(), count: 1 }]);
}
