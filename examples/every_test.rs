//! Every test there is: those of a module, those that a harness finds as it runs, fixtures, and what is done at the end of a body.

#[belljar::isolated(net, timeout = "30s")]
mod of_a_module {
    use std::net::TcpListener;

    use belljar::isolated;

    #[test]
    fn binds_port_80() {
        TcpListener::bind("0.0.0.0:80").unwrap();
    }

    // Its own arguments are added: it has a network and a root, and more time.
    #[isolated(mount, timeout = "1m")]
    fn writes_to_etc() {
        std::fs::write("/etc/hosts", "10.0.0.5 db\n").unwrap();
    }

    mod deeper {
        #[test]
        fn has_the_same() -> std::io::Result<()> {
            std::net::UdpSocket::bind("0.0.0.0:53").map(drop)
        }
    }
}

mod of_bytes {
    use belljar::{Spec, run, spec};

    static SPEC: Spec = spec!(net, memory = "256MiB", timeout = "30s", unsupported = "skip");

    fn port_of(input: &[u8]) -> Result<Vec<u8>, Box<dyn std::error::Error>> {
        let address = std::str::from_utf8(input)?;
        let server = std::net::TcpListener::bind(address)?;
        Ok(server.local_addr()?.port().to_string().into_bytes())
    }

    #[test]
    fn a_function_is_called_in_a_sandbox() {
        match run(&SPEC, b"0.0.0.0:80", port_of) {
            Ok(port) => assert_eq!(port, b"80"),
            Err(failure) if failure.is_skip() => println!("{failure}"),
            Err(failure) => panic!("{failure}"),
        }
    }
}

mod with_a_fixture {
    use std::path::PathBuf;

    use belljar::isolated;

    /// A directory that says what was done in it, and is removed at the end.
    struct Scratch(PathBuf);

    impl Drop for Scratch {
        fn drop(&mut self) {
            // In the sandbox, like all of the body.
            std::fs::remove_dir_all(&self.0).unwrap();
        }
    }

    #[isolated]
    fn cleans_up() {
        let scratch = Scratch("/tmp/scratch".into());
        std::fs::create_dir_all(scratch.0.join("data")).unwrap();
    }
}
