//! Programs on the hosts of a network laboratory: curl, dnsmasq, Python, busybox, and ip. They must be installed, so that this isn't run by
//! default.
//!
//! `docs/network.md` shows these.

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::{BufRead as _, BufReader};
    use std::net::{ToSocketAddrs as _, UdpSocket};
    use std::os::unix::fs::PermissionsExt;
    use std::process::Stdio;
    use std::time::Duration;

    use belljar::isolated;
    use belljar::net::Lab;

    #[isolated]
    fn curl_downloads_over_a_slow_line() {
        const SIZE: usize = 1 << 20;
        let mut lab = Lab::new();
        let (server, client) = (lab.host("server"), lab.host("client"));
        let net = lab.up().unwrap();
        net.port(&client).to_host().rate(20_000_000);
        fs::create_dir("/tmp/files").and_then(|()| fs::write("/tmp/files/data", vec![7; SIZE])).unwrap();
        let mut http = server.command("python3").args(["-m", "http.server", "80", "-d", "/tmp/files"]).spawn().unwrap();
        let get = ["--silent", "--retry", "9", "--retry-connrefused", "--write-out", "%{size_download} %{time_total}"];
        let output = client.command("curl").args(get).args(["-o", "/tmp/got", "http://server/data"]).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        let (size, seconds) = text.split_once(' ').unwrap();
        assert_eq!(size, SIZE.to_string());
        assert!(seconds.parse::<f64>().unwrap() >= 0.4, "20 Mbit/s are 2.5 MB/s at most");
        http.kill().and_then(|()| http.wait()).unwrap();
    }

    #[isolated]
    fn names_are_looked_up() {
        let mut lab = Lab::new();
        let (server, client) = (lab.host("server"), lab.host("client"));
        let net = lab.up().unwrap();
        fs::write("/etc/resolv.conf", "nameserver 10.0.0.1\noptions timeout:1 attempts:5\n").unwrap();
        let answers = ["--address=/example.test/192.0.2.7", "--no-hosts", "--no-resolv"];
        let mut dnsmasq = server.command("dnsmasq");
        dnsmasq.args(["--no-daemon", "--conf-file=/dev/null"]).args(answers).stderr(Stdio::piped());
        let mut dnsmasq = dnsmasq.spawn().unwrap();
        let mut log = BufReader::new(dnsmasq.stderr.take().unwrap()).lines();
        assert!(log.any(|line| line.unwrap().contains("started")));

        // The first answer is lost, and the C library asks again.
        net.port(&client).to_host().lose_nth(1);
        let addresses = client.run(|| "www.example.test:80".to_socket_addrs().unwrap());
        assert_eq!(addresses.map(|address| address.to_string()).collect::<Vec<_>>(), ["192.0.2.7:80"]);
        assert_eq!(net.port(&client).stats().lost, 1);
        dnsmasq.kill().and_then(|()| dnsmasq.wait()).unwrap();
    }

    /// What udhcpc runs, to have done what it has agreed on.
    const LEASE: &str = "#!/bin/sh
ip -4 address flush dev $interface
[ $1 != bound ] || ip address add $ip/$mask dev $interface
";

    #[isolated]
    fn addresses_are_leased() {
        let mut lab = Lab::new();
        let (server, client) = (lab.host("server"), lab.host("client"));
        let net = lab.up().unwrap();
        client.command("ip").args(["-4", "address", "flush", "dev", "eth0"]).status().unwrap();
        let lease = ["--dhcp-range=10.0.0.100,10.0.0.100,255.255.255.0", "--dhcp-leasefile=/tmp/leases", "--no-ping"];
        let mut dnsmasq = server.command("dnsmasq");
        dnsmasq.args(["--no-daemon", "--conf-file=/dev/null", "--port=0"]).args(lease).stderr(Stdio::piped());
        let mut dnsmasq = dnsmasq.spawn().unwrap();
        let mut log = BufReader::new(dnsmasq.stderr.take().unwrap()).lines();
        assert!(log.any(|line| line.unwrap().contains("DHCP, IP range")));

        // The first offer is lost, and the client asks again.
        net.port(&client).to_host().lose_nth(1);
        fs::write("/tmp/lease", LEASE)
            .and_then(|()| fs::set_permissions("/tmp/lease", PermissionsExt::from_mode(0o755)))
            .unwrap();
        let udhcpc = ["udhcpc", "-i", "eth0", "-n", "-q", "-t", "5", "-T", "1", "-s", "/tmp/lease"];
        assert!(client.command("busybox").args(udhcpc).status().unwrap().success());
        client.run(|| UdpSocket::bind("10.0.0.100:0").unwrap());
        assert_eq!(net.port(&client).stats().lost, 1);
        dnsmasq.kill().and_then(|()| dnsmasq.wait()).unwrap();
    }

    #[isolated]
    fn programs_run_on_hosts() {
        let mut lab = Lab::new();
        let (server, client) = (lab.host("server"), lab.host("client"));
        let net = lab.up().unwrap();
        net.port(&client).delay(Duration::from_millis(20));
        let mut http = server.command("python3").args(["-m", "http.server", "80", "-d", "/etc"]).spawn().unwrap();
        let get = ["--silent", "--retry", "9", "--retry-connrefused", "http://server/hosts"];
        let output = client.command("curl").args(get).output().unwrap();
        assert!(String::from_utf8_lossy(&output.stdout).contains("client"), "the server's /etc/hosts");
        net.capture("/tmp/http.pcapng").unwrap();
        http.kill().and_then(|()| http.wait()).unwrap();
    }
}
