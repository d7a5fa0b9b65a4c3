//! A downloader that must not wait for ever, and that must try again: its server does not answer, or answers late.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use belljar::{Fault, isolated};

const SERVER: &str = "127.0.0.1:80";

/// What is tested: it tries three times.
fn download(server: SocketAddr) -> io::Result<String> {
    let mut tries = 0;
    loop {
        tries += 1;
        match request(server) {
            Err(error) if tries < 3 && is_worth_a_try(&error) => {}
            answer => return answer,
        }
    }
}

fn is_worth_a_try(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::TimedOut | io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset)
}

fn request(server: SocketAddr) -> io::Result<String> {
    let mut stream = TcpStream::connect(server)?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// Answers each request, until the sandbox ends.
fn serve() -> SocketAddr {
    let server = TcpListener::bind(SERVER).expect("a port");
    let address = server.local_addr().expect("an address");
    thread::spawn(move || {
        for mut stream in server.incoming().flatten() {
            let _ = stream.read(&mut [0; 64]);
            let _ = stream.write_all(b"HTTP/1.0 200 OK\r\n\r\nhello");
        }
    });
    address
}

#[isolated]
fn a_connection_that_times_out_is_tried_again() {
    let server = serve();
    let fault = Fault::connecting().errno(libc::ETIMEDOUT).port(80).first(2).start().expect("a fault");
    assert!(download(server).expect("the third try").ends_with("hello"));
    assert_eq!((fault.hits(), fault.calls()), (2, 3));
}

#[isolated]
fn it_gives_up_after_the_third() {
    let server = serve();
    let fault = Fault::connecting().errno(libc::ETIMEDOUT).address("127.0.0.1").start().expect("a fault");
    assert_eq!(download(server).expect_err("no try succeeds").kind(), io::ErrorKind::TimedOut);
    assert_eq!(fault.hits(), 3);
}

#[isolated]
fn a_late_connection_is_one() {
    let server = serve();
    let fault = Fault::connecting().delay(Duration::from_millis(50)).start().expect("a fault");
    assert!(download(server).expect("it comes late").ends_with("hello"));
    assert_eq!(fault.hits(), 1);
}
