//! A transfer by QUIC, with [quinn](https://crates.io/crates/quinn), over a link that loses packets: the same ones in each run.
//!
//! quinn and its TLS take a while to build, so that this takes the feature `quic`.

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::sync::Arc;
    use std::time::Duration;

    use belljar::isolated;
    use belljar::net::Lab;
    use quinn::rustls::RootCertStore;
    use quinn::rustls::pki_types::PrivatePkcs8KeyDer;
    use quinn::{ClientConfig, Endpoint, EndpointConfig, ServerConfig, TokioRuntime};
    use tokio::runtime::{Builder, Runtime};

    const SIZE: usize = 1 << 20;

    fn runtime() -> Runtime {
        Builder::new_current_thread().enable_all().build().unwrap()
    }

    /// Sends a megabyte to the first client, on this host.
    async fn serve(config: ServerConfig, socket: UdpSocket) {
        let settings = EndpointConfig::default();
        let endpoint = Endpoint::new(settings, Some(config), socket, Arc::new(TokioRuntime)).unwrap();
        let connection = endpoint.accept().await.unwrap().await.unwrap();
        let mut stream = connection.open_uni().await.unwrap();
        stream.write_all(&vec![7; SIZE]).await.unwrap();
        stream.finish().unwrap();
        // Waits until the client has all of it. The message that closes the connection may be lost, so that waiting for it could take long.
        let _ = stream.stopped().await;
    }

    /// What the server sends.
    async fn fetch(config: ClientConfig) -> Vec<u8> {
        let mut endpoint = Endpoint::client("0.0.0.0:0".parse().unwrap()).unwrap();
        endpoint.set_default_client_config(config);
        let connection = endpoint.connect("10.0.0.1:443".parse().unwrap(), "server").unwrap().await.unwrap();
        let mut stream = connection.accept_uni().await.unwrap();
        let data = stream.read_to_end(SIZE).await.unwrap();
        connection.close(0_u32.into(), b"");
        endpoint.wait_idle().await;
        data
    }

    #[isolated]
    fn a_transfer_survives_losses() {
        let mut lab = Lab::new();
        let (server, client) = (lab.host("server"), lab.host("client"));
        let net = lab.seed(7).up().unwrap();
        net.port(&client).delay(Duration::from_millis(5)).loss(0.05);

        let pair = rcgen::generate_simple_self_signed(["server".to_owned()]).unwrap();
        let (certificate, key) = (pair.cert.der().clone(), PrivatePkcs8KeyDer::from(pair.signing_key.serialize_der()));
        let config = ServerConfig::with_single_cert(vec![certificate.clone()], key.into()).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(certificate).unwrap();
        let client_config = ClientConfig::with_root_certificates(Arc::new(roots)).unwrap();

        let socket = server.run(|| UdpSocket::bind("10.0.0.1:443").unwrap());
        let serving = server.spawn(move || runtime().block_on(serve(config, socket)));
        let data = client.run(|| runtime().block_on(fetch(client_config)));
        serving.join().unwrap();

        assert!(data.len() == SIZE && data.iter().all(|byte| *byte == 7));
        let stats = net.port(&client).stats();
        assert!(stats.lost_by_chance > 0 && stats.lost == stats.lost_by_chance, "{stats:?}");
    }
}
