//! A server that hangs: its process is there, its port is open, and no answer comes. Clients must give up in time.
//!
//! As a plain `#[test]`, this takes a server that is written to hang, or a proxy. Here it is any program, in a
//! [`belljar::Group`] that is frozen. That takes a cgroup which the user may divide, so that it isn't run by default.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;
use std::{fs, thread};

use belljar::{Group, isolated};
use daemonize::{Daemonize, Outcome};
use tiny_http::{Response, Server};

const PID_FILE: &str = "/run/server.pid";

/// Starts a server, as a daemon, and returns its pid.
fn start() -> u32 {
    match Daemonize::new().pid_file(PID_FILE).execute() {
        Outcome::Parent(parent) => assert_eq!(parent.expect("forked").first_child_exit_code, 0),
        Outcome::Child(child) => {
            child.expect("a daemon");
            let server = Server::http("0.0.0.0:80").expect("the port is free");
            fs::write("/tmp/ready", "").expect("writable");
            for request in server.incoming_requests() {
                request.respond(Response::from_string("from the jar")).expect("sent");
            }
        }
    }
    while !Path::new("/tmp/ready").exists() {
        thread::sleep(Duration::from_millis(1));
    }
    fs::read_to_string(PID_FILE).expect("a pid file").trim().parse().expect("a pid")
}

/// The client that is tested: it waits for an answer no longer than `timeout`.
fn ask(timeout: Duration) -> io::Result<String> {
    let mut stream = TcpStream::connect("127.0.0.1:80")?;
    stream.set_read_timeout(Some(timeout))?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

#[isolated(timeout = "1m")]
fn a_client_gives_up_on_a_frozen_server() -> io::Result<()> {
    let group = Group::new("server")?;
    group.add(start())?;
    assert!(ask(Duration::from_secs(30))?.ends_with("from the jar"));

    group.freeze()?;
    // The kernel goes on to accept connections for it.
    let error = ask(Duration::from_millis(100)).expect_err("no answer");
    assert!(matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{error}");

    group.thaw()?;
    assert!(ask(Duration::from_secs(30))?.ends_with("from the jar"));
    Ok(())
}
