use belljar::isolated;

#[isolated]
fn renames_the_host() {
    nix::unistd::sethostname("jar").unwrap(); // The host keeps its name,
    std::fs::write("/etc/hosts", "10.0.0.5 db\n").unwrap(); // and its files.
    std::net::TcpListener::bind("0.0.0.0:80").unwrap(); // No other test has this port 80.
} // What still runs, is mounted or was written is now gone.
