//! What each message says.

use insta::assert_snapshot;

use super::*;
use crate::harness::words;
use crate::text::snapshots::{lacking, page, told};

const TEST: &str = "tests::a";

const BY_SIGKILL: Option<End> = Some(End::Killed { signal: libc::SIGKILL, core: false });

const BY_SIGSEGV: End = End::Killed { signal: libc::SIGSEGV, core: true };

fn cause() -> Cause {
    Cause { why: "WHY".into(), seen: "SEEN".into(), remedy: "REMEDY".into() }
}

fn process(pid: u32, name: &str, waits_in: Option<&str>) -> Process {
    Process { pid, name: name.to_owned(), state: "sleeping", waits_in: waits_in.map(str::to_owned) }
}

/// More than a message lists.
fn crowd() -> Vec<Process> {
    (2..14).map(|pid| process(pid, "sh\n", None)).collect()
}

fn largest(name: Option<&str>, had_children: bool) -> Largest {
    Largest { bytes: 60 << 20, name: name.map(str::to_owned), had_children }
}

#[test]
fn each_message_has_its_words() {
    let error = io::Error::from(Errno::EACCES);
    let few = [Change::Created("/a".into()), Change::Changed("/b\n".into()), Change::Removed("/c".into())];
    let many: Vec<_> = (0..22).map(|number| Change::Created(format!("/{number}").into())).collect();
    let (second, timeout) = (Duration::from_secs(1), Duration::from_millis(250));
    let running = [process(2, "a", Some("do_wait")), process(3, "sleep", None)];
    let own_network = Spec { net: false, ids: Ids::Host, time: Some([second; 2]), ..Spec::PLAIN };
    let lowest = ("/sys/fs/cgroup/pids.max".into(), 64, 63);
    let told: Vec<(&str, String)> = told!(words::[
        changes(TEST, &few),
        changes(TEST, &many),
        changes_unknown(TEST, &error),
        repeated(TEST),
        listed_twice(&[TEST]),
        listed_twice(&[TEST, "tests::b"]),
        not_a_test_run(TEST),
        no_channel(TEST, Errno::EPIPE, None),
        no_channel(TEST, Errno::ENOBUFS, Some(&cause())),
        no_channel(TEST, Errno::EMFILE, None),
        zygote_gone(TEST, None, None),
        zygote_gone(TEST, BY_SIGKILL, Some(&cause())),
        zygote_gone(TEST, Some(End::Exited(1)), None),
        zygote_gone(TEST, Some(BY_SIGSEGV), Some(&cause())),
        binary_ends(TEST),
        unborn(TEST, None),
        unborn(TEST, Some(&cause())),
        init_gone(TEST, None, None),
        init_gone(TEST, BY_SIGKILL, Some(&cause())),
        init_gone(TEST, Some(End::Killed { signal: libc::SIGHUP, core: false }), None),
        init_gone(TEST, Some(End::Exited(101)), None),
        watching_failed(TEST, Errno::EBADF, None),
        watching_failed(TEST, Errno::ENOMEM, Some(&cause())),
        kept("FAILURE", &Spec::PLAIN, 7, &[]),
        kept("FAILURE", &own_network, 7, &[]),
        kept("FAILURE", &Spec::PLAIN, 7, &[("server", " OPTIONS".to_owned())]),
        panicked(TEST, Some("TEXT")),
        panicked(TEST, None),
        did_not_panic(TEST),
        out_of_time(TEST),
        skipped(&[(TEST, "WHY".to_owned())]),
        skipped(&[(TEST, "WHY".to_owned()), ("tests::b", "WHY".to_owned())]),
        returned_failure(TEST, 3),
        ended_before_return(TEST, End::Exited(0), true),
        ended_before_return(TEST, End::Exited(0), false),
        execed(TEST, End::Exited(0)),
        unreported(TEST),
        killed(TEST, BY_SIGSEGV, None),
        killed(TEST, BY_SIGSEGV, Some(&cause())),
        killed(TEST, End::Killed { signal: libc::SIGKILL, core: false }, None),
        killed(TEST, End::Killed { signal: 64, core: false }, None),
        stack_overflow(TEST),
        fault_unheard(TEST, BY_SIGSEGV),
        thread_ended(TEST),
        fault(TEST, BY_SIGSEGV, 0x10),
        ended_badly_after(TEST, "returned", BY_SIGSEGV, None),
        ended_badly_after(TEST, "panicked", End::Exited(1), Some(&cause())),
        rubbish(TEST, 0),
        rubbish(TEST, 1),
        rubbish(TEST, 2),
        out_of_memory(TEST, 64 << 20, None, None),
        out_of_memory(TEST, 64 << 20, Some(63 << 20), Some(&largest(None, false))),
        out_of_memory(TEST, 64 << 20, Some(63 << 20), Some(&largest(Some("cc\n"), true))),
        note_on_read_only(),
        note_on_names(),
        note_on_network(),
        note_on_ids(),
        note_on_threads(&["b\n", "a", "a"].map(str::to_owned)),
        note_on_processes(8),
        forks_refused(TEST, 1, 8),
        forks_refused(TEST, 2, 8),
        forks_refused_above(TEST, 1, None),
        forks_refused_above(TEST, 2, Some(lowest)),
        timed_out(TEST, second, true, &running),
        timed_out(TEST, timeout, false, &[]),
        unanswered(TEST, second, true, &crowd()),
        unanswered(TEST, timeout, false, &running),
        survivors(TEST, &running),
        unkillable(TEST),
        preparation_failed(TEST, "p", "belljar: `p` failed: it was killed."),
        preparation_failed(TEST, "p", "it panicked."),
        preparation_skipped(TEST, "p", "WHY"),
        preparation_panicked(None),
        preparation_panicked(Some("TEXT")),
        preparation_lost(Errno::EMFILE),
        preparation_not_shared("p", std::path::Path::new("/target/a\n"), &Errno::EROFS.into()),
        trouble(TEST, "the machine was too busy."),
        captured(TEST, std::path::Path::new("/target/a\n")),
        captures_left_out(TEST, 12, 8),
        not_captured(TEST, std::path::Path::new("/target/a\n"), &Errno::EROFS.into()),
        captures_lost(TEST, None),
    ]);
    let names: Vec<_> = told.iter().map(|(name, _)| *name).collect();
    assert_eq!(
        lacking(concat!(include_str!("mod.rs"), include_str!("preparations.rs"), include_str!("captures.rs")), &names),
        [""; 0],
        "these have no snapshot"
    );
    assert_snapshot!(page(told), @r#"
    # changes
    belljar: what `tests::a` has changed in its copy of the tree:
      created /a
      changed /b\n
      removed /c
    # changes
    belljar: what `tests::a` has changed in its copy of the tree:
      created /0
      created /1
      created /2
      created /3
      created /4
      created /5
      created /6
      created /7
      created /8
      created /9
      created /10
      created /11
      created /12
      created /13
      created /14
      created /15
      created /16
      created /17
      created /18
      created /19
      and 2 more
    # changes_unknown
    belljar: what `tests::a` has changed in its copy of the tree could not be found out: Permission denied (os error 13).
    # repeated
    belljar: `tests::a` is listed twice, and was run once. This is the verdict of its first call.
    # listed_twice
    belljar: 1 test is listed twice. It was run once:
      tests::a
    An attribute above `#[isolated]`, or `#[test]` under another name, also makes a test of the function. Write `#[isolated]` first, and `#[test]` by its own name.
    # listed_twice
    belljar: 2 tests are listed twice. Each was run once:
      tests::a
      tests::b
    An attribute above `#[isolated]`, or `#[test]` under another name, also makes a test of the function. Write `#[isolated]` first, and `#[test]` by its own name.
    # not_a_test_run
    belljar: `tests::a` failed: this process has no zygote, because it was started with `--list` or `--help`. Start it without, to run tests.
    # no_channel
    belljar: `tests::a` failed: the way to its sandbox could not be used: EPIPE (Broken pipe).
    # no_channel
    belljar: `tests::a` failed: the way to its sandbox could not be used: ENOBUFS (No buffer space available). It may be that WHY: SEEN. The remedy: REMEDY.
    # no_channel
    belljar: `tests::a` failed: no descriptors for its sandbox: EMFILE (Too many open files). Raise the limit on open files (`ulimit -n`), or run fewer tests at once (`--test-threads`).
    # zygote_gone
    belljar: `tests::a` failed: the zygote of this test binary has been killed, and all sandboxes with it. If it was not you, look for the out-of-memory killer in the kernel's log (`dmesg`).
    # zygote_gone
    belljar: `tests::a` failed: the zygote of this test binary has been killed, and all sandboxes with it. It may be that WHY: SEEN. The remedy: REMEDY.
    # zygote_gone
    belljar: `tests::a` failed: the zygote of this test binary ended with the status 1, and all sandboxes with it. It never should: please report this.
    # zygote_gone
    belljar: `tests::a` failed: the zygote of this test binary was killed by SIGSEGV (core dumped), and all sandboxes with it. It may be that WHY: SEEN. The remedy: REMEDY.
    # binary_ends
    belljar: `tests::a` failed: the test binary ends, because something in it has called `exit`, and with it end the sandboxes of all tests that still run.
    # unborn
    belljar: `tests::a` failed: its sandbox was never made. Either the process that makes sandboxes like it was killed, or the pipes for it did not reach that process: then raise the limit on open files (`ulimit -n`).
    # unborn
    belljar: `tests::a` failed: its sandbox was never made. Either the process that makes sandboxes like it was killed, or the pipes for it did not reach that process: then raise the limit on open files (`ulimit -n`). It may be that WHY: SEEN. The remedy: REMEDY.
    # init_gone
    belljar: `tests::a` failed: the init of its sandbox is gone, and all processes of the test with it. If it was not you, look for the out-of-memory killer in the kernel's log (`dmesg`).
    # init_gone
    belljar: `tests::a` failed: the init of its sandbox has been killed from outside, and all processes of the test with it. It may be that WHY: SEEN. The remedy: REMEDY.
    # init_gone
    belljar: `tests::a` failed: the init of its sandbox has been ended by reboot(2), and all processes of the test with it.
    # init_gone
    belljar: `tests::a` failed: the init of its sandbox ended with the status 101 before it could tell how the test ended. It never should: please report this.
    # watching_failed
    belljar: `tests::a` failed: its sandbox could not be watched: EBADF (Bad file number).
    # watching_failed
    belljar: `tests::a` failed: its sandbox could not be watched: ENOMEM (Out of memory). It may be that WHY: SEEN. The remedy: REMEDY.
    # kept
    FAILURE
    belljar: its sandbox is kept. To enter it:
      nsenter --target 7 --preserve-credentials --mount --pid --ipc --uts --cgroup --user --net sh
    To let it go:
      kill -KILL 7
    # kept
    FAILURE
    belljar: its sandbox is kept. To enter it:
      nsenter --target 7 --preserve-credentials --mount --pid --ipc --uts --cgroup --time sh
    To let it go:
      kill -KILL 7
    # kept
    FAILURE
    belljar: its sandbox is kept. To enter it:
      nsenter --target 7 --preserve-credentials --mount --pid --ipc --uts --cgroup --user --net sh
    To enter its host `server`:
      nsenter --target 7 --preserve-credentials --pid --ipc --cgroup --user OPTIONS sh
    To let it go:
      kill -KILL 7
    # panicked
    belljar: `tests::a` failed: its body panicked: TEXT
    # panicked
    belljar: `tests::a` failed: its body panicked.
    # did_not_panic
    belljar: `tests::a` failed: its body returned, and should have panicked.
    # out_of_time
    belljar: `tests::a` failed: its time is up.
    # skipped
    belljar: skipped 1 test that this host can't run
      tests::a: WHY
    # skipped
    belljar: skipped 2 tests that this host can't run
      tests::a: WHY
      tests::b: WHY
    # returned_failure
    belljar: `tests::a` failed: it returned a value that stands for the status 3, which means failure.
    # ended_before_return
    belljar: `tests::a` failed: its process called exit(0) before the body returned. A test passes by returning: let a child process exit in its place.
    # ended_before_return
    belljar: `tests::a` failed: its process called _exit(0) before the body returned. A test passes by returning: let a child process exit in its place.
    # execed
    belljar: `tests::a` failed: its process ran another program in its place (exec), which ended with the status 0. A test passes by returning: exec in a child process.
    # unreported
    belljar: `tests::a` failed: its process could not report how the body ended, because the body closed the descriptor that leads to the test binary, or shut it down. Close only descriptors that you opened, or close the others in a child process.
    # killed
    belljar: `tests::a` failed: its process was killed by SIGSEGV (core dumped) before the body returned.
    # killed
    belljar: `tests::a` failed: its process was killed by SIGSEGV (core dumped) before the body returned. It may be that WHY: SEEN. The remedy: REMEDY.
    # killed
    belljar: `tests::a` failed: its process was killed by SIGKILL before the body returned. If it was not you, look for the out-of-memory killer in the kernel's log (`dmesg`).
    # killed
    belljar: `tests::a` failed: its process was killed by signal 64 before the body returned.
    # stack_overflow
    belljar: `tests::a` failed: stack overflow: the test's thread used up its stack. Recurse less, or ask for more (RUST_MIN_STACK).
    # fault_unheard
    belljar: `tests::a` failed: its process was killed by SIGSEGV (core dumped), and belljar's handler, which tells why, did not run. Either this was a stack overflow on a thread that the test started: recurse less there, or give the thread more (thread::Builder::stack_size). Or the body has blocked the signal. Or the body, or a library before `main`, has set another handler for it.
    # thread_ended
    belljar: `tests::a` failed: the thread of its body ended, and the body neither returned nor panicked. Something ended that thread alone: exit(2) as a system call (`SYS_exit`), or a seccomp filter that kills threads. A test passes by returning.
    # fault
    belljar: `tests::a` failed: its process was killed by SIGSEGV (core dumped) when it used the invalid address 0x10.
    # ended_badly_after
    belljar: `tests::a` failed: the body returned, but then its process was killed by SIGSEGV (core dumped) instead of ending cleanly.
    # ended_badly_after
    belljar: `tests::a` failed: the body panicked, but then its process ended with the status 1 instead of ending cleanly. It may be that WHY: SEEN. The remedy: REMEDY.
    # rubbish
    belljar: `tests::a` failed: something in its sandbox sent a message of no bytes to the descriptor that leads to the test binary, which can't be trusted any more. Write only to descriptors that you opened.
    # rubbish
    belljar: `tests::a` failed: something in its sandbox wrote 1 byte to the descriptor that leads to the test binary, which can't be trusted any more. Write only to descriptors that you opened.
    # rubbish
    belljar: `tests::a` failed: something in its sandbox wrote 2 bytes to the descriptor that leads to the test binary, which can't be trusted any more. Write only to descriptors that you opened.
    # out_of_memory
    belljar: `tests::a` failed: killed: out of memory (limit 64 MiB).
    # out_of_memory
    belljar: `tests::a` failed: killed: out of memory (limit 64 MiB, peak 63 MiB, largest: `tests::a` 60 MiB).
    # out_of_memory
    belljar: `tests::a` failed: killed: out of memory (limit 64 MiB, peak 63 MiB, largest: `cc\n` or a child of it 60 MiB).
    # note_on_read_only
    what it has of the host is read-only. bind = ["/path:rw"] gives it a path to write to, and root = "overlay" a private copy of the whole tree
    # note_on_names
    it has a network of its own, without name servers. Names can be written to /etc/hosts; #[isolated(mount)] has the host's network
    # note_on_network
    it has a network of its own, with `lo` alone. #[isolated(mount)] has the host's network
    # note_on_ids
    there is no user and no group but root. uids = 65536 has more
    # note_on_threads
    it has none of the threads that were started before `main` (`a`, `b\n`). What waits for them waits for ever, as a call into Go does
    # note_on_processes
    fork refused, as it has as many processes and threads as it may have: pids limit 8
    # forks_refused
    belljar: `tests::a` reached its limit: fork refused once: pids limit 8.
    # forks_refused
    belljar: `tests::a` reached its limit: fork refused 2 times: pids limit 8.
    # forks_refused_above
    belljar: `tests::a` met a limit that it shares: fork refused once. Another test may have used it up: write `pids = ..` on the one that starts so many.
    # forks_refused_above
    belljar: `tests::a` met a limit that it shares: fork refused 2 times: /sys/fs/cgroup/pids.max is 64, and pids.current was 63. Another test may have used it up: write `pids = ..` on the one that starts so many.
    # timed_out
    belljar: `tests::a` failed: it still ran after its timeout of 1s, and was killed with all it had started:
      pid 2 `a`, sleeping in do_wait
      pid 3 `sleep`, sleeping
    # timed_out
    belljar: `tests::a` failed: it still ran after 250ms, the timeout that BELLJAR_TIMEOUT gives to tests with none of their own, and was killed with all it had started:
      (nothing that could be listed)
    # unanswered
    belljar: `tests::a` failed: it did not begin: after its timeout of 1s, these had made no sandbox for it:
      pid 2 `sh\n`, sleeping
      pid 3 `sh\n`, sleeping
      pid 4 `sh\n`, sleeping
      pid 5 `sh\n`, sleeping
      pid 6 `sh\n`, sleeping
      pid 7 `sh\n`, sleeping
      pid 8 `sh\n`, sleeping
      pid 9 `sh\n`, sleeping
      pid 10 `sh\n`, sleeping
      pid 11 `sh\n`, sleeping
      and 2 more
    # unanswered
    belljar: `tests::a` failed: it did not begin: after 250ms, the timeout that BELLJAR_TIMEOUT gives to tests with none of their own, these had made no sandbox for it:
      pid 2 `a`, sleeping in do_wait
      pid 3 `sleep`, sleeping
    # survivors
    belljar: `tests::a` is over, and what it left running was killed:
      pid 2 `a`, sleeping in do_wait
      pid 3 `sleep`, sleeping
    # unkillable
    belljar: `tests::a` has processes that can't be killed. They wait in the kernel for something that does not answer, such as the server of a file system, and end when that does.
    # preparation_failed
    belljar: `tests::a` failed: its preparation `p` failed: it was killed.
    # preparation_failed
    belljar: `tests::a` failed: its preparation `p` failed: it panicked.
    # preparation_skipped
    belljar: skipped: `tests::a`, as its preparation `p` is: WHY
    # preparation_panicked
    it panicked.
    # preparation_panicked
    it panicked: TEXT
    # preparation_lost
    what it left could not be kept: EMFILE (Too many open files).
    # preparation_not_shared
    belljar: each test runs its preparations itself, among them `p`, because what they leave can't be shared in `/target/a\n`: Read-only file system (os error 30).
    # trouble
    belljar: `tests::a`: the machine was too busy.
    # captured
    belljar: what passed in the laboratory of `tests::a` is in `/target/a\n`, for tcpdump or Wireshark.
    # captures_left_out
    belljar: `tests::a` had 12 laboratories: what passed is kept of the first 8 only.
    # not_captured
    belljar: what passed in the laboratory of `tests::a` could not be written to `/target/a\n`: Read-only file system (os error 30).
    # captures_lost
    belljar: what passed in a laboratory of `tests::a`, or what went wrong there, did not reach the test binary: EMFILE (Too many open files).
    "#);
}
