//! A host on which others work while tests run: what sandboxes are planned from is not there any more, or is new, when they are made.
//!
//! The host is a sandbox. In it, this binary runs again.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use belljar::isolated;
use belljar_tests::{body, is_real_root, refusal_of_copies, rounds, run, run_body, this_binary};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::unistd::chown;

belljar_tests::bodies!();

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
                    #[belljar_tests::body]
                    #[belljar::isolated(root = "overlay")]
                    fn $name() {
                        super::super::finds_what_is_kept();
                    }
                )*
            }

            mod copies_of_a_directory {
                $(
                    #[belljar_tests::body]
                    #[belljar::isolated(root = "/srv/tree")]
                    fn $name() {
                        super::super::finds_what_is_kept_in("/");
                    }
                )*
            }

            mod empty {
                $(
                    #[belljar_tests::body]
                    #[belljar::isolated]
                    fn $name() {
                        super::super::finds_what_is_kept_in("/srv/tools");
                    }
                )*
            }

            mod with_a_user {
                $(
                    #[belljar_tests::body]
                    #[belljar::isolated(user = 1000, bind = ["/srv"])]
                    fn $name() {
                        super::super::finds_what_is_kept_in("/srv/tree");
                    }
                )*
            }

            mod with_the_hosts_tree {
                $(
                    #[belljar_tests::body]
                    #[belljar::isolated(net)]
                    fn $name() {
                        super::super::finds_what_is_kept();
                    }
                )*
            }

            mod with_binds {
                $(
                    #[belljar_tests::body]
                    #[belljar::isolated(bind = ["/tmp/kept", "/var/lib"])]
                    fn $name() {
                        super::super::finds_what_is_kept();
                    }
                )*
            }
        }

        mod with_ids {
            mod copies {
                $(
                    #[belljar_tests::body]
                    #[belljar::isolated(root = "overlay", uids = 65536, user = 1000)]
                    fn $name() {
                        super::super::finds_what_is_kept();
                    }
                )*
            }

            mod own {
                $(
                    #[belljar_tests::body]
                    #[belljar::isolated(uids = 65536)]
                    fn $name() {
                        super::super::finds_what_is_kept_in("/srv/tools");
                    }
                )*
            }
        }
    };
}

crowd!(a b c d e f g h i j k l m n o p q r s t u v w x y z);

/// How many tests there are of each kind in the crowd.
const CROWD: usize = 26;

fn finds_what_is_kept() {
    [SPLIT, DEEPER].into_iter().for_each(finds_what_is_kept_in);
}

fn finds_what_is_kept_in(directory: &str) {
    assert_eq!(fs::read_to_string(format!("{directory}/kept")).expect("a file that stays"), "kept");
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
        fs::write(path("a-file"), number.to_string()).expect("write");
        symlink("nowhere", path("a-link")).expect("symlink");
        fs::rename(&first, &second).expect("rename");
        if number % 16 == 0 {
            mount(Some("tmpfs"), second.as_str(), Some("tmpfs"), MsFlags::empty(), Some("size=1m")).expect("mount");
            thread::yield_now();
            umount2(second.as_str(), MntFlags::MNT_DETACH).expect("umount");
        }
        fs::remove_file(path("a-link")).expect("remove");
        fs::remove_file(path("a-file")).expect("remove");
        fs::remove_dir_all(&second).expect("remove");
    }
}

/// Makes and removes directories that are shown where they are there, as long as `goes_on`.
fn come_and_go(goes_on: &AtomicBool) {
    let directories =
        ["/lib32", "/libx32", "/libexec", "/gnu/store", "/nix/store", "/srv/new-tools", "/etc/pki", "/etc/timezone"];
    let absent: Vec<_> = directories.into_iter().filter(|path| fs::symlink_metadata(path).is_err()).collect();
    while goes_on.load(Ordering::Relaxed) {
        for path in &absent {
            fs::create_dir_all(path).expect("mkdir");
            thread::yield_now();
            fs::remove_dir(path).expect("rmdir");
        }
    }
}

/// Runs the crowd, or a part of it, while others work in all that plans look at.
fn run_crowd(part: &str, kinds: usize) {
    make_host();
    // This is there only if it is the home of who runs the tests.
    fs::create_dir_all("/root").expect("mkdir");
    for directory in ["/srv/tree", "/srv/tools"] {
        fs::create_dir_all(directory).expect("mkdir");
        fs::write(format!("{directory}/kept"), "kept").expect("write");
    }
    fs::write("/srv/kept", "kept").expect("write");
    let goes_on = AtomicBool::new(true);
    let run = thread::scope(|scope| {
        for directory in ["/", "/etc", "/mnt", "/root", "/run", "/srv", "/srv/tree", "/srv/tools", SPLIT, DEEPER] {
            let goes_on = &goes_on;
            scope.spawn(move || work(directory, goes_on));
        }
        scope.spawn(|| come_and_go(&goes_on));
        let mut command = this_binary();
        command.args(["body", part, "--exact", "--test-threads=8"]).env("HOME", "/root");
        let run = run(command.env("PATH", "/usr/local/bin:/usr/bin:/bin:/srv/tools:/srv/new-tools"));
        goes_on.store(false, Ordering::Relaxed);
        run
    });
    let passed = kinds * CROWD;
    assert!(run.output.contains(&format!("test result: ok. {passed} passed; 0 failed;")), "{}", run.output);
}

#[body]
#[isolated]
fn is_a_host_with_others() {
    run_crowd("crowd::*", 6);
}

#[body]
#[isolated(user = "host")]
fn is_a_host_of_real_root() {
    run_crowd("with_ids::*", 2);
}

#[test]
fn others_work_on_the_host_meanwhile() {
    if refusal_of_copies().is_some() {
        return;
    }
    for _ in 0..rounds(1) {
        for host in ["is_a_host_with_others"].into_iter().chain(is_real_root().then_some("is_a_host_of_real_root")) {
            let run = run_body(host);
            assert!(run.passed(), "{}", run.output);
        }
    }
}

/// As a desktop has it: `/run/user/1000` is closed even to the root of a sandbox, which knows no such user, and something is mounted below.
#[body]
#[isolated(user = "host")]
fn is_a_host_with_a_closed_directory() {
    make_host();
    let closed = format!("{SPLIT}/closed");
    fs::create_dir(&closed).expect("mkdir");
    mount_below(&closed);
    chown(closed.as_str(), Some(1000.into()), Some(1000.into())).expect("chown");
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).expect("chmod");
    let run =
        run(this_binary().args(["body", "*copies::a*", "*with_the_hosts_tree::a*", "--exact", "--test-threads=1"]));
    assert!(run.output.contains("test result: ok. 3 passed; 0 failed;"), "{}", run.output);
}

#[test]
fn what_is_closed_to_the_root_of_sandboxes_is_let_be() {
    if !is_real_root() || refusal_of_copies().is_some() {
        return;
    }
    let run = run_body("is_a_host_with_a_closed_directory");
    assert!(run.passed(), "{}", run.output);
}

// ---- What is new after a sandbox was planned ----

#[body]
#[isolated(root = "overlay")]
fn new_1_is_planned() {
    assert!(!Path::new("/tmp/new").exists());
}

#[body]
#[isolated(root = "overlay")]
fn new_2_is_prepared() {}

#[body]
fn new_3_makes_it() {
    for directory in [SPLIT, DEEPER] {
        fs::create_dir(format!("{directory}/new")).expect("mkdir");
        fs::write(format!("{directory}/kept"), "changed").expect("write");
    }
}

#[body]
#[isolated(root = "overlay")]
fn new_4_sees_it() {
    for directory in [SPLIT, DEEPER] {
        assert!(Path::new(directory).join("new").is_dir());
        assert_eq!(fs::read_to_string(format!("{directory}/kept")).expect("read"), "changed");
    }
}

/// What a plan has made, or not made, because of what was there then.
#[body]
#[isolated(root = "/srv/tree")]
fn new_5_has_its_own_devices() {}

#[body]
fn new_6_makes_a_directory() {
    fs::create_dir("/srv/tree/dev").expect("mkdir");
}

#[body]
#[isolated(root = "/srv/tree")]
fn new_7_has_its_own_devices() {}

#[body]
fn new_8_removes_it() {
    fs::remove_dir("/srv/tree/dev").expect("rmdir");
}

#[body]
#[isolated(root = "/srv/tree")]
fn new_9_has_its_own_devices() {}

#[body]
#[isolated]
fn is_a_host_with_something_new() {
    make_host();
    fs::create_dir_all("/srv/tree").expect("mkdir");
    let run = run(this_binary().args(["body", "new_*", "--exact", "--test-threads=1"]));
    assert!(run.output.contains("test result: ok. 9 passed; 0 failed;"), "{}", run.output);
}

#[test]
fn what_is_new_is_seen() {
    if refusal_of_copies().is_some() {
        return;
    }
    let run = run_body("is_a_host_with_something_new");
    assert!(run.passed(), "{}", run.output);
}

// ---- Roots by default, some of which are made ahead ----

macro_rules! warm_up {
    ($($name:ident)*) => {
        $(
            #[body]
            #[isolated]
            fn $name() {
                assert_eq!(fs::read_to_string("/srv/tools/kept").expect("read"), "kept");
            }
        )*
    };
}

warm_up!(root_a1 root_a2 root_a3 root_a4 root_a5 root_a6 root_a7 root_a8 root_a9 root_aa root_ab root_ac);

#[body]
fn root_b_changes_what_is_shown() {
    fs::write("/srv/tools/kept", "changed").expect("write");
    fs::remove_dir_all("/srv/vanishing").expect("remove");
    fs::rename("/srv/replaced", "/srv/old").and_then(|()| fs::create_dir("/srv/replaced")).expect("another");
    fs::write("/srv/replaced/kept", "new").expect("write");
}

macro_rules! made_ahead {
    ($($name:ident)*) => {
        $(
            #[body]
            #[isolated]
            fn $name() {
                assert_eq!(fs::read_to_string("/srv/tools/kept").expect("read"), "changed");
                assert_eq!(fs::read_dir("/srv/vanishing").map_or(0, Iterator::count), 0);
            }
        )*
    };
}

// As many as are made ahead at most.
made_ahead!(root_c1 root_c2 root_c3 root_c4);

#[body]
#[isolated]
fn root_d_is_made_later() {
    assert_eq!(fs::read_to_string("/srv/tools/kept").expect("read"), "changed");
    assert_eq!(fs::read_to_string("/srv/replaced/kept").expect("read"), "new");
    assert!(!Path::new("/srv/vanishing").exists());
}

#[body]
#[isolated(bind = ["/srv/replaced"])]
fn root_e_names_it() {
    assert_eq!(fs::read_to_string("/srv/replaced/kept").expect("read"), "new");
}

#[body]
#[isolated]
fn is_a_host_whose_tools_change() {
    for name in ["tools", "vanishing", "replaced"] {
        fs::create_dir_all(format!("/srv/{name}")).expect("mkdir");
        fs::write(format!("/srv/{name}/kept"), "kept").expect("write");
    }
    let mut command = this_binary();
    command.args(["body", "root_*", "--exact", "--test-threads=1"]);
    let run = run(command.env("PATH", "/usr/local/bin:/usr/bin:/bin:/srv/tools:/srv/vanishing:/srv/replaced"));
    assert!(run.output.contains("test result: ok. 19 passed; 0 failed;"), "{}", run.output);
}

#[test]
fn default_roots_show_what_is_there() {
    let run = run_body("is_a_host_whose_tools_change");
    assert!(run.passed(), "{}", run.output);
}

// ---- What is mounted goes along with a directory that is renamed ----

#[body]
#[isolated(bind = ["/srv"])]
fn renamed_is_read_only() {
    for name in ["first", "second"] {
        let file = Path::new("/srv").join(name).join("mounted/file");
        match fs::write(&file, "written").expect_err("read-only").kind() {
            ErrorKind::ReadOnlyFilesystem => println!("it is read-only"),
            // It has the other name.
            kind => assert_eq!(kind, ErrorKind::NotFound, "{}", file.display()),
        }
    }
}

#[body]
#[isolated]
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
        let mut tried = 0;
        for _ in 0..rounds(20) {
            let run = run(this_binary().args(["body", "renamed_is_read_only", "--exact", "--show-output"]));
            if !run.passed() {
                goes_on.store(false, Ordering::Relaxed);
                panic!("{}", run.output);
            }
            tried += run.output.matches("it is read-only").count();
        }
        goes_on.store(false, Ordering::Relaxed);
        // Each round meets it at one of both names more often than not.
        assert!(tried > 0 || rounds(20) < 20, "nothing was there to write to");
    });
}

#[test]
fn a_mount_that_moves_is_read_only() {
    let run = run_body("is_a_host_that_renames");
    assert!(run.passed(), "{}", run.output);
}
