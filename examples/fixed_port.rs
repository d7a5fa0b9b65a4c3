//! A server of the crate [`tiny_http`] on port 80: ten of them at once.
//!
//! As plain `#[test]`s, these need root, or a sysctl for low ports; and even then all but one at a time fail, because the
//! port is taken.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::thread;

use belljar::isolated;
use tiny_http::{Response, Server};

fn serve_once() {
    let server = Server::http("0.0.0.0:80").expect("the port is free");
    let client = thread::spawn(|| {
        let mut stream = TcpStream::connect("127.0.0.1:80").expect("connected");
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n").expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("answered");
        answer
    });
    let request = server.recv().expect("a request");
    request.respond(Response::from_string("from the jar")).expect("sent");
    assert!(client.join().expect("no panic").ends_with("from the jar"));
}

macro_rules! servers {
    ($($name:ident)*) => { $(#[isolated(net)] fn $name() { serve_once(); })* };
}

servers!(one two three four five six seven eight nine ten);
