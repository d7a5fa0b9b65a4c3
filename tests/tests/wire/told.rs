//! What the seed can't answer for is told with a failure: a wire that could not keep up. One whose test is stopped keeps up.

use std::net::UdpSocket;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::time::Duration;
use std::{env, fs, process, ptr, thread};

use belljar::isolated;
use belljar::net::Lab;
use belljar_tests::{body, body_command, refuse, run, run_body, run_hanging, wait_until};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork, getppid};

use crate::{receiver, sender, two};

/// The processes of all laboratories that are up.
fn wires() -> Vec<Pid> {
    let processes = fs::read_dir("/proc").expect("read").flatten();
    let wires = processes.filter_map(|entry| {
        let name = fs::read_to_string(entry.path().join("comm")).ok()?;
        entry.file_name().to_str()?.parse().ok().filter(|_| name == "belljar-wire\n")
    });
    wires.map(Pid::from_raw).collect()
}

/// The process of the one laboratory that is up.
fn wire() -> Pid {
    *wires().first().expect("a wire")
}

/// Does something while the wire is stopped.
pub(crate) fn without_wire(work: impl FnOnce()) {
    let wire = wire();
    kill(wire, Signal::SIGSTOP).expect("kill");
    work();
    kill(wire, Signal::SIGCONT).expect("kill");
}

#[body]
#[isolated]
fn more_comes_than_the_wire_has_room_for() {
    let (net, client, _server) = two(7);
    let here = sender(&client, "10.0.0.2:7000");
    without_wire(|| (0..20_000).for_each(|_| _ = here.send(b"x")));
    drop(net);
    panic!("the body");
}

#[body]
#[isolated]
fn frames_leave_too_late() {
    let (net, client, _server) = two(7);
    net.port(&client).delay(Duration::from_secs(2));
    let here = sender(&client, "10.0.0.2:7000");
    here.send(b"x").expect("send");
    // It is decided about, and waits.
    assert_eq!(net.port(&client).stats().queued, 1);
    without_wire(|| thread::sleep(Duration::from_millis(2100)));
    drop(net);
    panic!("the body");
}

#[body]
#[isolated]
fn nothing_is_wrong() {
    let (net, client, _server) = two(7);
    sender(&client, "10.0.0.2:7000").send(b"x").expect("send");
    drop(net);
    panic!("the body");
}

/// Loses packets, because more come than the wire has room for.
fn overrun() -> (belljar::net::Net, belljar::net::Host) {
    let (net, client, _server) = two(7);
    let here = sender(&client, "10.0.0.2:7000");
    without_wire(|| (0..20_000).for_each(|_| _ = here.send(b"x")));
    // The wire has taken all that was left.
    wait_until(|| net.port(&client).from_host().stats().queued == 0);
    (net, client)
}

#[body]
#[isolated]
fn the_body_aborts() {
    let _lab = overrun();
    eprintln!("the body");
    process::abort();
}

#[body]
#[isolated]
fn the_body_becomes_another_program() {
    use std::os::unix::process::CommandExt as _;
    let _lab = overrun();
    eprintln!("the body");
    panic!("{}", process::Command::new("true").exec());
}

#[body]
#[isolated]
fn the_time_is_up() {
    let _lab = overrun();
    eprintln!("the body");
    loop {
        thread::park();
    }
}

/// A process goes on sending to all hosts when the body is over. The wire has more to do for each packet than that process has.
#[body]
#[isolated]
fn the_body_aborts_in_a_flood() {
    let mut lab = Lab::new();
    let hosts = ["client", "a", "b", "c"].map(|name| lab.host(name));
    let _net = lab.up().expect("up");
    let here = hosts[0].run(|| UdpSocket::bind("0.0.0.0:0")).expect("bind");
    here.set_broadcast(true).and_then(|()| here.connect("10.0.0.255:7000")).expect("connect");
    if let ForkResult::Child = belljar_tests::fork() {
        loop {
            let _ = here.send(b"x");
        }
    }
    without_wire(|| (0..20_000).for_each(|_| _ = here.send(b"x")));
    eprintln!("the body");
    process::abort();
}

/// The wire finds more to take at each turn. It counts what was lost when it sees that the body is over.
#[test]
fn a_wire_ends_by_itself_while_packets_come_without_a_pause() {
    let run = run_body("told::the_body_aborts_in_a_flood");
    assert!(run.output.contains("the body") && run.left.is_empty(), "{:?}: {}", run.left, run.output);
    assert_eq!(run.output.matches("came faster than the wire could take them").count(), 1, "{}", run.output);
    assert!(!run.output.contains(" 0 came faster"), "{}", run.output);
    assert!(!run.output.contains("was killed, so that nothing passed"), "{}", run.output);
}

/// More laboratories than captures are kept of.
#[body]
#[isolated]
fn the_body_aborts_with_its_tenth_laboratory() {
    (0..9).for_each(|_| drop(two(7)));
    wait_until(|| wires().is_empty());
    let _lab = overrun();
    eprintln!("the body");
    process::abort();
}

#[test]
fn the_trouble_of_each_laboratory_is_told() {
    const LEFT_OUT: &str = "laboratories: what passed is kept of the first 8 only";
    let output = run_body("told::the_body_aborts_with_its_tenth_laboratory").output;
    assert!(output.contains("packets of its 10 laboratories were lost"), "{output}");
    assert!(output.contains(LEFT_OUT) && output.contains("-8.pcapng") && !output.contains("-9.pcapng"), "{output}");
    // The twin.
    assert!(!run_body("told::the_body_aborts").output.contains(LEFT_OUT));
}

/// Stops a process so that SIGCONT does not resume it, as a debugger does.
#[expect(unsafe_code, reason = "ptrace(2) has no wrapper here")]
fn hold(process: Pid) {
    for request in [libc::PTRACE_SEIZE, libc::PTRACE_INTERRUPT] {
        // SAFETY: these requests take no memory.
        let held = unsafe {
            libc::ptrace(request, process.as_raw(), ptr::null_mut::<libc::c_void>(), ptr::null_mut::<libc::c_void>())
        };
        Errno::result(held).expect("ptrace");
    }
    waitpid(process, Some(WaitPidFlag::__WALL)).expect("waitpid");
}

#[body]
#[isolated]
fn the_wire_does_not_answer() {
    let (net, client, _server) = two(7);
    hold(wire());
    net.port(&client).loss(0.1);
    eprintln!("the body");
    process::abort();
}

#[body]
#[isolated]
fn the_wire_answers() {
    let (net, client, _server) = two(7);
    net.port(&client).loss(0.1);
    eprintln!("the body");
    process::abort();
}

#[test]
fn a_wire_that_does_not_answer_is_told() {
    const UNANSWERED: &str = "the wire of its laboratory did not run for some seconds, once";
    let output = run_body("told::the_wire_does_not_answer").output;
    assert!(output.contains("the body") && output.contains(UNANSWERED), "{output}");
    // The twin. One that has much to take is no twin: a slow machine needs some seconds for it.
    let output = run_body("told::the_wire_answers").output;
    assert!(output.contains("the body") && !output.contains("did not run for some seconds"), "{output}");
}

/// Nobody drops the laboratory then.
#[test]
fn trouble_is_told_however_the_test_ends() {
    const OVERRUN: &str = "came faster than the wire could take them";
    for test in ["the_body_aborts", "the_body_becomes_another_program", "the_time_is_up"] {
        let mut command = body_command(&format!("told::{test}"));
        let output = match test {
            // Where the machine is slow, the wire may not have counted them before the time was up.
            "the_time_is_up" => run_hanging(&mut command, |output| output.contains(OVERRUN)).output,
            _ => run(&mut command).output,
        };
        assert!(output.contains("the body"), "{output}");
        assert_eq!(output.matches(OVERRUN).count(), 1, "{test}: {output}");
        assert!(!output.contains(" 0 came faster"), "{test}: {output}");
    }
}

#[test]
fn trouble_is_told_with_the_failure() {
    const OVERRUN: &str = "came faster than the wire could take them";
    const LATE: &str = "left too late";
    let told = |test: &str| {
        let output = run_body(&format!("told::{test}")).output;
        assert!(output.contains("the body"), "{output}");
        [output.contains(OVERRUN) && !output.contains(" 0 came faster"), output.contains(LATE)]
    };
    assert_eq!(told("more_comes_than_the_wire_has_room_for"), [true, false]);
    assert!(told("frames_leave_too_late")[1]);
    // The twin. On a machine that is busy, something may be late in any case.
    assert!(!told("nothing_is_wrong")[0]);
}

/// As it is if a body stops all processes with `kill(-1, ..)`.
#[isolated]
fn a_wire_that_is_stopped_goes_on_when_it_is_asked() {
    let (net, client, _server) = two(7);
    let here = sender(&client, "10.0.0.2:7000");
    kill(wire(), Signal::SIGSTOP).expect("kill");
    here.send(b"x").expect("send");
    assert_eq!(net.port(&client).from_host().stats().sent, 1);
}

/// What the body mounts, it can unmount.
#[isolated]
fn the_wire_does_not_stay_in_a_directory_of_the_body() {
    env::set_current_dir("/tmp").expect("chdir");
    let _net = two(7);
    assert_eq!(fs::read_link(format!("/proc/{}/cwd", wire())).expect("read"), Path::new("/"));
    assert_eq!(env::current_dir().expect("a directory"), Path::new("/tmp"));
}

#[isolated]
fn a_wire_that_does_not_run_is_an_error() {
    drop(two(7));
    let refused = thread::spawn(|| {
        // What its process does first.
        refuse(libc::SYS_close_range, None, Errno::EINVAL);
        let mut lab = Lab::new();
        lab.host("client");
        lab.up().expect_err("there is no wire").to_string()
    });
    let words = refused.join().expect("join");
    assert!(words.contains("a wire"), "{words}");
}

#[isolated]
fn the_wire_goes_on_while_the_body_is_stopped() {
    let (_net, client, server) = two(7);
    let there = receiver(&server, 7000);
    let here = sender(&client, "10.0.0.2:7000");
    // SAFETY: the child makes system calls, and ends.
    #[expect(unsafe_code, reason = "a body may fork")]
    let child = match unsafe { fork() }.expect("fork") {
        ForkResult::Child => {
            let stopped = kill(getppid(), Signal::SIGSTOP);
            let stat = format!("/proc/{}/stat", getppid());
            wait_until(|| fs::read_to_string(&stat).is_ok_and(|stat| stat.contains(") T ")));
            let sent = here.send(b"x");
            let mut fds = [PollFd::new(there.as_fd(), PollFlags::POLLIN)];
            let came = poll(&mut fds, PollTimeout::from(20_000_u16)) == Ok(1);
            let resumed = kill(getppid(), Signal::SIGCONT);
            process::exit(i32::from(!(stopped.is_ok() && sent.is_ok() && came && resumed.is_ok())))
        }
        ForkResult::Parent { child } => child,
    };
    assert_eq!(waitpid(child, None), Ok(WaitStatus::Exited(child, 0)));
}
