//! Attacks by programs.

use std::fs::{self};
use std::path::{Path, PathBuf};
use std::{env, process};

use belljar::isolated;
use belljar_tests::{body, is_real_root, runners};
use nix::unistd::{Uid, chown};

use crate::{attacked, can_run, command_for, look_at_host, make_package, mounts};

/// Where an attack finds its seed.
const SEED: &str = "/srv/seed/seed";

/// What util-linux can do to a mount `$m`, with a directory `$w` of the sandbox's own. `{}` is another of these.
const COMMANDS: [&str; 30] = [
    "mount -o remount,rw $m",
    "mount -o remount,rw,bind $m",
    "mount -o remount,rw,bind,dev,suid,exec $m",
    "mount --bind $m $w; mount -o remount,rw,bind $w",
    "mount --rbind $m $w; mount -o remount,rw,bind $w",
    "mount --rbind / $w; mount -o remount,rw,bind $w$m",
    "mount --move $m $w",
    "mount --make-shared $m",
    "mount --make-rshared /",
    "mount --make-rslave /",
    "mount --make-runbindable $m",
    "umount $m",
    "umount -l $m",
    "umount -R $m",
    "umount -a -t ext4,btrfs,xfs,overlay,devtmpfs",
    "mount -t tmpfs none $m",
    "mount -t overlay -o userxattr,lowerdir=$m,upperdir=$w/upper,workdir=$w/work none $w",
    "mount -t proc none $w",
    "unshare -m sh -c '{}'",
    "unshare -Urm sh -c '{}'",
    "unshare -Urmpf --mount-proc sh -c '{}'",
    "unshare -mnp --fork sh -c '{}'",
    "nsenter -t 1 -m sh -c '{}'",
    "nsenter -t 1 -a sh -c '{}'",
    "nsenter -t $$ -m -r/ sh -c '{}'",
    "chroot $m sh -c '{}'",
    "mkdir -p $w/old; mount --rbind / $w; chroot $w sh -c '{}'",
    "mount --rbind / $w; cd $w && mkdir -p tmp/old && pivot_root . tmp/old && sh -c '{}'",
    "mount --bind $w $w; cp -a /bin /lib /lib64 $w; switch_root $w sh -c '{}'",
    "setpriv --clear-groups sh -c '{}'",
];

/// What is tried between commands: everything that would show on the host.
const WRITE: &str =
    "for p in $m $w /mnt /srv /usr /tmp/old$m; do touch $p; chmod u+w $p; mkdir $p/was-here; true >> $p/file; done";

/// How many commands follow each other in an attack, and how many lie in each other at most.
const COMMANDS_EACH: usize = 8;
const DEPTH: usize = 3;

/// A script of some commands, each on a mount of its own choice.
fn script(random: &mut fastrand::Rng, points: &[PathBuf], depth: usize) -> String {
    // What belongs to an ordinary user, as often as all else together.
    let package = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("CARGO_MANIFEST_DIR"));
    let count = if depth == 0 { COMMANDS_EACH } else { 2 };
    let commands = (0..count).map(|_| {
        let point = if random.bool() { &package } else { &points[random.usize(0..points.len())] };
        let command = COMMANDS[random.usize(0..COMMANDS.len())];
        let is_nested = command.contains("{}") && depth < DEPTH;
        let inner = if is_nested { script(random, points, depth + 1) } else { "true".to_owned() };
        let inner = inner.replace('\'', "'\\''");
        format!("m={}; {}; {WRITE}", point.display(), command.replace("{}", &inner))
    });
    commands.collect::<Vec<_>>().join("; ")
}

/// Attacks with programs, in the order that the seed says.
fn attack_with_programs() {
    let seed = fs::read_to_string(SEED).expect("a seed").trim().parse().expect("a number");
    let points: Vec<_> = mounts().into_iter().map(|mount| mount.point).filter(|point| !is_kernels(point)).collect();
    let script = script(&mut fastrand::Rng::with_seed(seed), &points, 0);
    let mut shell = process::Command::new("timeout");
    let begin = "for tool in mount umount unshare nsenter setpriv; do command -v $tool >&2 || exit; done; echo begun; exec >/dev/null";
    shell.args(["20", "sh", "-c", &format!("{begin}; w=/tmp/work; mkdir -p $w/upper $w/work; export w m; {script}")]);
    let output = shell.stdin(process::Stdio::null()).stderr(process::Stdio::null()).output().expect("sh");
    assert!(output.stdout.starts_with(b"begun\n"), "nothing was tried: {script}");
}

/// What programs are not let loose on: the kernel's files, which belong to nobody's host but this machine's.
fn is_kernels(point: &Path) -> bool {
    ["/proc", "/sys"].iter().any(|kernels| point.starts_with(kernels))
}

macro_rules! attacked_with_programs {
    ($($name:ident ($($arguments:tt)*);)*) => {
        $(#[body]
        #[isolated(bind = ["seed:/srv/seed"], timeout = "60s", $($arguments)*)]
        fn $name() {
            attack_with_programs();
        })*
        /// All of them, by their names.
        const WITH_PROGRAMS: &[(&str, fn())] = &[$((stringify!($name), $name)),*];
    };
}

attacked_with_programs! {
    programs_in_a_root();
    programs_without_a_network(mount);
    programs_as_somebody(user = 1000);
    programs_with_a_copy(root = "overlay");
}

#[body]
#[isolated(uids = 65536, bind = ["seed:/srv/seed"], timeout = "60s")]
fn programs_with_users() {
    attack_with_programs();
}

/// As often as the environment says, with seeds that follow each other.
#[body]
fn attacks_many_times() {
    let number = |name: &str| env::var(name).expect(name).parse::<u64>().expect("a number");
    let (first, rounds) = (number("BELLJAR_TESTS_SEED"), number("BELLJAR_TESTS_ATTACKS"));
    let with_users: (&str, fn()) = ("programs_with_users", programs_with_users);
    let users = is_real_root().then_some(&with_users);
    let kinds: Vec<_> = WITH_PROGRAMS.iter().chain(users).filter(|(name, _)| can_run(name)).collect();
    for round in 0..rounds {
        fs::write("seed/seed", (first + round).to_string()).expect("write");
        let (_, attack) = kinds[round as usize % kinds.len()];
        attack();
    }
    println!("attacked {rounds}");
}

#[test]
fn programs_change_nothing_of_the_host() {
    let rounds = belljar_tests::rounds(6);
    let seed = fastrand::u64(0..1 << 32);
    for runner in runners() {
        let package = make_package(*runner);
        let before = look_at_host(package.path());
        let seeds = package.path().join("seed");
        fs::create_dir(&seeds).expect("mkdir");
        if runner.is_some() {
            chown(&seeds, Some(Uid::from_raw(65534)), None).expect("chown");
        }
        let mut command = command_for(package.path(), *runner, "programs::attacks_many_times");
        command.env("BELLJAR_TESTS_SEED", seed.to_string()).env("BELLJAR_TESTS_ATTACKS", rounds.to_string());
        let run = belljar_tests::run(&mut command);
        assert!(run.passed(), "seed {seed}, {runner:?}: {}", run.output);
        assert_eq!(attacked(&run), rounds);
        fs::remove_dir_all(&seeds).expect("remove");
        assert_eq!(without_root_times(look_at_host(package.path())), without_root_times(before), "seed {seed}");
    }
}

/// Of the package itself, without the time at which the seeds were removed.
fn without_root_times(mut seen: Vec<String>) -> Vec<String> {
    seen.remove(0);
    seen
}
