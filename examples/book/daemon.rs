#![expect(clippy::zombie_processes, reason = "nobody needs to wait for a daemon that ends with its sandbox")]

use std::io::Read;
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;
use std::{fs, thread};

use belljar::isolated;

/// Starts the daemon, and returns what it says to its first client.
fn greeting() -> String {
    Command::new(env!("CARGO_BIN_EXE_greeter")).spawn().unwrap();
    let mut client = loop {
        match TcpStream::connect("127.0.0.1:80") {
            Ok(client) => break client,
            Err(_) => thread::sleep(Duration::from_millis(5)), // It is not there yet.
        }
    };
    let mut text = String::new();
    client.read_to_string(&mut text).unwrap();
    text
}

#[isolated(timeout = "30s")]
fn greets() {
    assert_eq!(greeting(), "hello\n");
}

#[isolated(timeout = "30s")]
fn writes_its_pid() {
    greeting();
    let pid = fs::read_to_string("/run/greeter.pid").unwrap();
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap();
    assert_eq!(name, "greeter\n");
}
