use std::net::UdpSocket;
use std::time::Duration;

use belljar::isolated;
use belljar::net::Lab;

/// Sends a question until somebody answers. Returns how often that was.
fn ask(server: &str) -> u32 {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    for attempt in 1.. {
        socket.send_to(b"?", server).unwrap();
        if socket.recv(&mut [0; 16]).is_ok() {
            return attempt;
        }
    }
    unreachable!()
}

#[isolated(timeout = "60s")]
fn asks_again_when_an_answer_is_lost() {
    let mut lab = Lab::new();
    let (server, client) = (lab.host("server"), lab.host("client"));
    let net = lab.up().unwrap();

    let socket = server.run(|| UdpSocket::bind("10.0.0.1:53").unwrap());
    server.spawn(move || {
        loop {
            let (_, from) = socket.recv_from(&mut [0; 16]).unwrap();
            socket.send_to(b"!", from).unwrap();
        }
    });

    net.port(&client).to_host().lose_nth(1); // The next packet to the client is lost.
    assert!(client.run(|| ask("10.0.0.1:53")) >= 2);
    assert_eq!(net.port(&client).stats().lost_as_told, 1);
}
