//! The network laboratory: what its hosts have, what is between them, and what is left of it.

mod dumped;
mod ends;
mod errors;
mod faults;
mod gates;
mod hosts;
mod many;
mod threads;
mod topology;
mod traced;

use std::io::{self, Read as _, Write as _};
use std::net::{TcpListener, TcpStream, ToSocketAddrs, UdpSocket};
use std::thread;
use std::time::Duration;

use belljar::net::Host;

belljar_tests::bodies!();

/// For how long something is waited for that is to come.
const PATIENCE: Duration = Duration::from_secs(20);

/// For how long something is waited for that is not to come.
const SHORT: Duration = Duration::from_millis(150);

/// Whether a TCP client on one host gets the greeting of a server on another, which listens at `address`.
fn greets(server: &Host, client: &Host, address: &str) -> io::Result<()> {
    let (_, port) = address.rsplit_once(':').expect("a port");
    let listener = server.run(|| TcpListener::bind(format!("[::]:{port}")))?;
    let serving = thread::spawn(move || listener.accept().map(|(mut stream, _)| stream.write_all(b"hello")));
    let address = client.run(|| address.to_socket_addrs())?.next().expect("an address");
    let mut stream = client.run(|| TcpStream::connect_timeout(&address, PATIENCE))?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    serving.join().expect("join").expect("accept").expect("write");
    assert_eq!(text, "hello");
    Ok(())
}

/// A socket on a host, which waits for so long.
fn socket(host: &Host, address: &str, patience: Duration) -> UdpSocket {
    let socket = host.run(|| UdpSocket::bind(address)).expect("bind");
    socket.set_read_timeout(Some(patience)).expect("timeout");
    socket
}

/// The next datagram, or `None` if none comes.
fn next(socket: &UdpSocket) -> Option<Vec<u8>> {
    let mut text = [0; 2048];
    match socket.recv(&mut text) {
        Ok(length) => Some(text[..length].to_vec()),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
        Err(error) => panic!("{error}"),
    }
}
