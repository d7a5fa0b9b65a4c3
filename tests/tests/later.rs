//! What is new on a host, or has gone, after sandboxes were planned, as mounts and devices: the next ones have it as if it had always been so.
//!
//! The host is a sandbox. In it, this binary runs again.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use belljar::isolated;
use belljar_tests::{body, refusal_of_copies, run, run_body, this_binary};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::unistd::unlink;

belljar_tests::bodies!();

// ---- Mounts ----

/// A directory, and one that is a mount itself, as `/media` and `/tmp` may be.
const DIRECTORIES: [&str; 2] = ["/srv/plain", "/srv/disk"];

fn mount_tmpfs(point: &str) {
    fs::create_dir_all(point).expect("mkdir");
    mount(Some("tmpfs"), point, Some("tmpfs"), MsFlags::empty(), Some("size=1m")).expect("mount");
}

/// Looks at both directories, which lie at `place`, and at what is mounted below them, if that `is_there`.
fn look(place: &str, is_there: bool, write: impl Fn(&Path)) {
    for directory in DIRECTORIES {
        let directory = Path::new(place).join(directory.strip_prefix("/srv/").expect("below"));
        let point = directory.join("point");
        assert_eq!(fs::exists(point.join("mounted")).expect("stat"), is_there, "{}", point.display());
        [directory, point].iter().for_each(|directory| write(&directory.join("written")));
    }
}

fn can_be_written(file: &Path) {
    fs::write(file, "written").unwrap_or_else(|error| panic!("{}: {error}", file.display()));
}

fn is_read_only(file: &Path) {
    let kind = fs::write(file, "written").map_err(|error| error.kind());
    assert_eq!(kind, Err(ErrorKind::ReadOnlyFilesystem), "{}", file.display());
}

macro_rules! looks {
    ($($copy:ident $tree:ident $bind:ident $hosts_tree:ident: $is_there:literal;)*) => {
        $(
            #[body]
            #[isolated(root = "overlay")]
            fn $copy() {
                look("/srv", $is_there, can_be_written);
            }

            #[body]
            #[isolated(root = "/srv")]
            fn $tree() {
                look("/", $is_there, can_be_written);
            }

            #[body]
            #[isolated(bind = ["/srv"])]
            fn $bind() {
                look("/srv", $is_there, is_read_only);
            }

            #[body]
            #[isolated(net)]
            fn $hosts_tree() {
                look("/srv", $is_there, |_| {});
            }
        )*
    };
}

// The second time, there is a plan.
looks! {
    turn_1_copy turn_1_tree turn_1_bind turn_1_hosts: false;
    turn_2_copy turn_2_tree turn_2_bind turn_2_hosts: false;
    turn_4_copy turn_4_tree turn_4_bind turn_4_hosts: true;
    turn_5_copy turn_5_tree turn_5_bind turn_5_hosts: true;
    turn_7_copy turn_7_tree turn_7_bind turn_7_hosts: false;
}

#[body]
fn turn_3_something_is_mounted() {
    for point in DIRECTORIES.map(|directory| format!("{directory}/point")) {
        mount_tmpfs(&point);
        fs::write(format!("{point}/mounted"), "mounted").expect("write");
    }
}

#[body]
fn turn_6_it_is_unmounted() {
    for directory in DIRECTORIES {
        umount2(format!("{directory}/point").as_str(), MntFlags::MNT_DETACH).expect("umount");
    }
}

fn run_all() {
    let [plain, disk] = DIRECTORIES;
    fs::create_dir_all(format!("{plain}/point")).expect("mkdir");
    mount_tmpfs(disk);
    fs::create_dir(format!("{disk}/point")).expect("mkdir");
    let run = run(this_binary().args(["body", "turn_*", "--exact", "--test-threads=1"]));
    assert!(run.output.contains("test result: ok. 22 passed; 0 failed;"), "{}", run.output);
    for directory in DIRECTORIES {
        assert!(!Path::new(directory).join("written").exists());
    }
}

#[body]
#[isolated]
fn is_a_host_with_mounts_of_its_own() {
    run_all();
}

/// As systemd has it: what is mounted comes to all copies of the mounts.
#[body]
#[isolated]
fn is_a_host_that_shares_its_mounts() {
    let shared = MsFlags::MS_REC | MsFlags::MS_SHARED;
    mount(None::<&str>, "/", None::<&str>, shared, None::<&str>).expect("share");
    run_all();
}

#[test]
fn what_is_mounted_later_is_as_what_was_mounted_before() {
    if let Some(why) = refusal_of_copies() {
        println!("not tried: {why:?}");
        return;
    }
    for host in ["is_a_host_with_mounts_of_its_own", "is_a_host_that_shares_its_mounts"] {
        let run = run_body(host);
        assert!(run.passed(), "{}", run.output);
    }
}

// ---- Devices ----

/// Those that not every host has. Here, files stand for them.
const DEVICES: [&str; 2] = ["/dev/fuse", "/dev/net/tun"];

macro_rules! finds {
    ($($name:ident)*: $is_there:literal) => {
        $(
            #[body]
            #[isolated]
            fn $name() {
                assert_eq!(DEVICES.map(|device| Path::new(device).exists()), [$is_there; 2]);
            }
        )*
    };
}

/// As many as are made ahead at most. Those show what was there then.
macro_rules! made_ahead {
    ($($name:ident)*) => {
        $(
            #[body]
            #[isolated]
            fn $name() {}
        )*
    };
}

finds!(device_1_a device_1_b: true);
made_ahead!(device_3_a device_3_b device_3_c device_3_d device_5_a device_5_b device_5_c device_5_d);
finds!(device_3_e device_3_f: false);
finds!(device_5_e device_5_f: true);

#[body]
fn device_2_is_removed() {
    DEVICES.into_iter().for_each(|device| fs::remove_file(device).expect("remove"));
}

#[body]
fn device_4_comes_back() {
    make_devices();
}

fn make_devices() {
    fs::create_dir_all("/dev/net").expect("mkdir");
    DEVICES.into_iter().for_each(|device| fs::write(device, "").expect("write"));
}

#[body]
#[isolated]
fn is_a_host_whose_devices_change() {
    for device in DEVICES.into_iter().filter(|device| Path::new(device).exists()) {
        umount2(device, MntFlags::MNT_DETACH).and_then(|()| unlink(device)).expect("remove");
    }
    make_devices();
    let run = run(this_binary().args(["body", "device_*", "--exact", "--test-threads=1"]));
    assert!(run.output.contains("test result: ok. 16 passed; 0 failed;"), "{}", run.output);
}

#[test]
fn devices_come_and_go() {
    let run = run_body("is_a_host_whose_devices_change");
    assert!(run.passed(), "{}", run.output);
}
