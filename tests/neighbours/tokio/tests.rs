//! Tests with a runtime of tokio, which runs inside of the sandbox: threads, timers and sockets are the sandbox's.

use std::time::Duration;

use belljar::isolated;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// Talks to itself over a port that only a sandbox has free.
async fn talk() {
    assert_eq!(std::os::unix::process::parent_id(), 1);
    let listener = TcpListener::bind("0.0.0.0:80").await.expect("the port is free");
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await?;
        tokio::time::sleep(Duration::from_millis(1)).await;
        stream.write_all(b"hello").await
    });
    let mut text = String::new();
    TcpStream::connect("127.0.0.1:80").await.expect("connect").read_to_string(&mut text).await.expect("read");
    server.await.expect("join").expect("write");
    assert_eq!(text, "hello");
}

#[isolated]
#[tokio::test]
async fn above() {
    talk().await;
}

#[tokio::test]
#[isolated]
async fn below() {
    talk().await;
}

#[isolated(net, timeout = "1m")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn above_with_threads() {
    talk().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[isolated(net, timeout = "1m")]
async fn below_with_threads() {
    talk().await;
}

#[isolated]
#[tokio::test]
#[should_panic(expected = "on purpose")]
async fn above_and_panics() {
    talk().await;
    panic!("on purpose");
}

#[tokio::test]
#[should_panic(expected = "on purpose")]
#[isolated]
async fn below_and_panics() {
    talk().await;
    panic!("on purpose");
}

#[isolated]
#[tokio::test]
async fn with_a_result() -> Result<(), std::io::Error> {
    talk().await;
    tokio::fs::write("/etc/hosts", "").await
}

#[isolated]
mod of_a_module {
    use super::*;

    #[tokio::test]
    async fn plain() {
        talk().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    #[isolated(timeout = "1m")]
    async fn with_its_own() {
        talk().await;
    }
}
