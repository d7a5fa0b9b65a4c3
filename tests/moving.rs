//! A host on which others work while tests run: what sandboxes are planned from is not there any more, or is new, when they are made.
//!
//! The host is a sandbox. In it, this binary runs again.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use belljar::isolated;
use belljar_tests::{refusal_of_copies, rounds, run, run_ignored, this_binary};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// A directory with a mount below it, whose entries are copied one by one.
const SPLIT: &str = "/tmp";

/// Another one, deeper.
const DEEPER: &str = "/var/lib";

fn mount_below(directory: &str) {
    let point = format!("{directory}/mounted");
    fs::create_dir(&point).expect("mkdir");
    mount(Some("tmpfs"), point.as_str(), Some("tmpfs"), MsFlags::empty(), Some("size=1m")).expect("mount");
    fs::write(format!("{point}/kept"), "kept").expect("write");
    fs::write(format!("{directory}/kept"), "kept").expect("write");
}

fn make_host() {
    mount_below(SPLIT);
    fs::create_dir_all(DEEPER).expect("mkdir");
    mount_below(DEEPER);
}

macro_rules! crowd {
    ($($name:ident)*) => {
        mod crowd {
            mod copies {
                $(
                    #[belljar::isolated(root = "overlay")]
                    #[ignore = "run by the others"]
                    fn $name() {
                        super::super::finds_what_is_kept();
                    }
                )*
            }

            mod empty {
                $(
                    #[belljar::isolated]
                    #[ignore = "run by the others"]
                    fn $name() {}
                )*
            }

            mod with_the_hosts_tree {
                $(
                    #[belljar::isolated(net)]
                    #[ignore = "run by the others"]
                    fn $name() {
                        super::super::finds_what_is_kept();
                    }
                )*
            }

            mod with_binds {
                $(
                    #[belljar::isolated(bind = ["/tmp/kept", "/var/lib"])]
                    #[ignore = "run by the others"]
                    fn $name() {
                        super::super::finds_what_is_kept();
                    }
                )*
            }
        }
    };
}

crowd!(a b c d e f g h i j k l m n o p q r s t u v w x y z);

/// How many tests there are in the crowd.
const CROWD: usize = 4 * 26;

fn finds_what_is_kept() {
    for directory in [SPLIT, DEEPER] {
        assert_eq!(fs::read_to_string(format!("{directory}/kept")).expect("a file that stays"), "kept");
    }
}

/// Makes, renames, removes, mounts and unmounts, as long as `goes_on`.
fn work(directory: &str, goes_on: &AtomicBool) {
    let path = |name: &str| format!("{directory}/{name}");
    for number in 0.. {
        if !goes_on.load(Ordering::Relaxed) {
            return;
        }
        let (first, second) = (path(&format!("first-{number}")), path(&format!("second-{number}")));
        fs::create_dir(&first).expect("mkdir");
        fs::write(format!("{first}/file"), "x").expect("write");
        fs::write(path("file"), number.to_string()).expect("write");
        symlink("nowhere", path("link")).expect("symlink");
        fs::rename(&first, &second).expect("rename");
        if number % 16 == 0 {
            mount(Some("tmpfs"), second.as_str(), Some("tmpfs"), MsFlags::empty(), Some("size=1m")).expect("mount");
            thread::yield_now();
            umount2(second.as_str(), MntFlags::MNT_DETACH).expect("umount");
        }
        fs::remove_file(path("link")).expect("remove");
        fs::remove_file(path("file")).expect("remove");
        fs::remove_dir_all(&second).expect("remove");
    }
}

#[isolated]
#[ignore = "run by others_work_on_the_host_meanwhile"]
fn is_a_host_with_others() {
    make_host();
    let goes_on = AtomicBool::new(true);
    let run = thread::scope(|scope| {
        for directory in [SPLIT, DEEPER] {
            scope.spawn(|| work(directory, &goes_on));
        }
        let run = run(this_binary().args(["crowd::", "--ignored", "--test-threads=8"]));
        goes_on.store(false, Ordering::Relaxed);
        run
    });
    assert!(run.output.contains(&format!("test result: ok. {CROWD} passed; 0 failed;")), "{}", run.output);
}

#[test]
fn others_work_on_the_host_meanwhile() {
    if refusal_of_copies().is_some() {
        return;
    }
    for _ in 0..rounds(2) {
        let run = run_ignored("is_a_host_with_others");
        assert!(run.passed(), "{}", run.output);
    }
}

// ---- What is new after a sandbox was planned ----

#[isolated(root = "overlay")]
#[ignore = "run by what_is_new_is_seen"]
fn new_1_is_planned() {
    assert!(!Path::new("/tmp/new").exists());
}

#[isolated(root = "overlay")]
#[ignore = "run by what_is_new_is_seen"]
fn new_2_is_prepared() {}

#[test]
#[ignore = "run by what_is_new_is_seen"]
fn new_3_makes_it() {
    for directory in [SPLIT, DEEPER] {
        fs::create_dir(format!("{directory}/new")).expect("mkdir");
        fs::write(format!("{directory}/kept"), "changed").expect("write");
    }
}

#[isolated(root = "overlay")]
#[ignore = "run by what_is_new_is_seen"]
fn new_4_sees_it() {
    for directory in [SPLIT, DEEPER] {
        assert!(Path::new(directory).join("new").is_dir());
        assert_eq!(fs::read_to_string(format!("{directory}/kept")).expect("read"), "changed");
    }
}

/// What a plan has made, or not made, because of what was there then.
#[isolated(root = "/srv/tree")]
#[ignore = "run by what_is_new_is_seen"]
fn new_5_has_its_own_devices() {}

#[test]
#[ignore = "run by what_is_new_is_seen"]
fn new_6_makes_a_directory() {
    fs::create_dir("/srv/tree/dev").expect("mkdir");
}

#[isolated(root = "/srv/tree")]
#[ignore = "run by what_is_new_is_seen"]
fn new_7_has_its_own_devices() {}

#[test]
#[ignore = "run by what_is_new_is_seen"]
fn new_8_removes_it() {
    fs::remove_dir("/srv/tree/dev").expect("rmdir");
}

#[isolated(root = "/srv/tree")]
#[ignore = "run by what_is_new_is_seen"]
fn new_9_has_its_own_devices() {}

#[isolated]
#[ignore = "run by what_is_new_is_seen"]
fn is_a_host_with_something_new() {
    make_host();
    fs::create_dir_all("/srv/tree").expect("mkdir");
    let run = run(this_binary().args(["new_", "--ignored", "--test-threads=1"]));
    assert!(run.output.contains("test result: ok. 9 passed; 0 failed;"), "{}", run.output);
}

#[test]
fn what_is_new_is_seen() {
    if refusal_of_copies().is_some() {
        return;
    }
    let run = run_ignored("is_a_host_with_something_new");
    assert!(run.passed(), "{}", run.output);
}

// ---- What is mounted goes along with a directory that is renamed ----

#[isolated(bind = ["/srv"])]
#[ignore = "run by a_mount_that_moves_is_read_only"]
fn renamed_is_read_only() {
    for name in ["first", "second"] {
        let file = Path::new("/srv").join(name).join("mounted/file");
        if let Ok(()) = fs::write(&file, "written") {
            panic!("{} is writable", file.display());
        }
    }
}

#[isolated]
#[ignore = "run by a_mount_that_moves_is_read_only"]
fn is_a_host_that_renames() {
    fs::create_dir_all("/srv/first/mounted").expect("mkdir");
    mount(Some("tmpfs"), "/srv/first/mounted", Some("tmpfs"), MsFlags::empty(), Some("size=1m")).expect("mount");
    let goes_on = AtomicBool::new(true);
    thread::scope(|scope| {
        scope.spawn(|| {
            while goes_on.load(Ordering::Relaxed) {
                fs::rename("/srv/first", "/srv/second").expect("rename");
                fs::rename("/srv/second", "/srv/first").expect("rename");
            }
        });
        for _ in 0..rounds(20) {
            let run = run(this_binary().args(["renamed_is_read_only", "--ignored"]));
            if !run.passed() {
                goes_on.store(false, Ordering::Relaxed);
                panic!("{}", run.output);
            }
        }
        goes_on.store(false, Ordering::Relaxed);
    });
}

#[test]
fn a_mount_that_moves_is_read_only() {
    let run = run_ignored("is_a_host_that_renames");
    assert!(run.passed(), "{}", run.output);
}
