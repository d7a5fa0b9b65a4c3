//! Hosts and routers, as a test has them.

use std::ffi::OsStr;
use std::fmt::{self, Debug, Formatter};
use std::io;
use std::marker::PhantomData;
use std::ops::Deref;
use std::panic::resume_unwind;
use std::process::Command;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use super::node::sealed::Sealed;
use super::node::{End, Node};
use super::place::why;
use super::{entered, threads};
use crate::ns::Namespace;

/// A host of a laboratory, with a network, an `/etc/hosts`, a `/sys` and a name of its own. [`Lab::host`](super::Lab::host) makes one.
///
/// It is a handle: a clone is the same host. What it shares with the test is everything else, such as files and the memory.
///
/// `/proc/net` is the one of the *process*. Programs that [`command`](Self::command) starts find the host's there. A thread on the host finds
/// it in `/proc/thread-self/net`.
///
/// ```test_harness
/// # use belljar::isolated;
/// use std::net::{TcpListener, TcpStream};
///
/// use belljar::net::Lab;
///
/// #[isolated]
/// fn a_client_reaches_a_server() {
///     let mut lab = Lab::new();
///     let (server, client) = (lab.host("server"), lab.host("client"));
///     let _net = lab.up().unwrap();
///     let listener = server.run(|| TcpListener::bind("[::]:80").unwrap());
///     server.spawn(move || listener.accept().unwrap());
///     client.run(|| TcpStream::connect("server:80").unwrap());
/// }
/// ```
#[derive(Clone)]
pub struct Host(pub(super) Arc<Node>);

impl Sealed for Host {
    fn node(&self) -> &Arc<Node> {
        &self.0
    }
}

impl End for Host {}

impl Host {
    /// Chooses an address of its first interface, with the bits of its subnet: `192.0.2.7/24`. By default, the interface has one IPv4 and one IPv6
    /// address, as [`Lab`](super::Lab) says. A chosen one replaces that of its kind.
    ///
    /// ```test_harness
    /// # use belljar::isolated;
    /// # use belljar::net::Lab;
    /// # #[isolated]
    /// # fn example() {
    /// let mut lab = Lab::new();
    /// let server = lab.host("server").address("192.0.2.7/24");
    /// let _net = lab.up().unwrap();
    /// server.run(|| std::net::TcpListener::bind("192.0.2.7:80")).unwrap();
    /// # }
    /// ```
    pub fn address(&self, address: &str) -> Self {
        self.0.choice().addresses.push(address.to_owned());
        self.clone()
    }

    /// Chooses the MAC address of its first interface: `02:00:00:00:00:07`.
    ///
    /// ```test_harness
    /// # use belljar::isolated;
    /// # use belljar::net::Lab;
    /// # #[isolated]
    /// # fn example() -> std::io::Result<()> {
    /// let mut lab = Lab::new();
    /// let host = lab.host("host").mac("02:00:00:00:be:11");
    /// let _net = lab.up()?;
    /// let mac = host.run(|| std::fs::read_to_string("/sys/class/net/eth0/address"))?;
    /// assert_eq!(mac, "02:00:00:00:be:11\n");
    /// # Ok(())
    /// # }
    /// ```
    pub fn mac(&self, mac: &str) -> Self {
        self.0.choice().mac = Some(mac.to_owned());
        self.clone()
    }

    /// Chooses how many bytes the packets of its first interface can have: 68 to 9000, and 1500 without this. Below 1280,
    /// there is no IPv6.
    ///
    /// ```test_harness
    /// # use belljar::isolated;
    /// # use belljar::net::Lab;
    /// # #[isolated]
    /// # fn example() -> std::io::Result<()> {
    /// let mut lab = Lab::new();
    /// let host = lab.host("host").mtu(1280);
    /// let _net = lab.up()?;
    /// assert_eq!(host.run(|| std::fs::read_to_string("/sys/class/net/eth0/mtu"))?, "1280\n");
    /// # Ok(())
    /// # }
    /// ```
    pub fn mtu(&self, bytes: u32) -> Self {
        self.0.choice().mtu = Some(bytes);
        self.clone()
    }

    /// Chooses the name of its first interface, which is `eth0` without this.
    ///
    /// ```test_harness
    /// # use belljar::isolated;
    /// # use belljar::net::Lab;
    /// # #[isolated]
    /// # fn example() {
    /// let mut lab = Lab::new();
    /// let host = lab.host("host").interface("wan0");
    /// let _net = lab.up().unwrap();
    /// assert!(host.run(|| std::path::Path::new("/sys/class/net/wan0").exists()));
    /// # }
    /// ```
    pub fn interface(&self, name: &str) -> Self {
        self.0.choice().interface = Some(name.to_owned());
        self.clone()
    }

    /// Its name.
    ///
    /// ```
    /// # use belljar::net::Lab;
    /// assert_eq!(Lab::new().host("server").name(), "server");
    /// ```
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Runs `body` on it, on a thread of its own that is named after the host, and returns what `body` returns. If that panics, so does this.
    ///
    /// Threads that `body` starts are on the host too, and sockets that it makes stay there, whoever uses them. So `body` can build a runtime
    /// such as tokio's, or a socket that the test drives from outside.
    ///
    /// # Panics
    ///
    /// If the laboratory is not up, or there can be no thread.
    ///
    /// ```test_harness
    /// # use belljar::isolated;
    /// # use belljar::net::Lab;
    /// # #[isolated]
    /// # fn example() {
    /// # let mut lab = Lab::new();
    /// # let host = lab.host("web1");
    /// # let _net = lab.up().unwrap();
    /// let name = host.run(|| nix::unistd::gethostname()).unwrap();
    /// assert_eq!(name, "web1");
    /// # }
    /// ```
    #[track_caller]
    pub fn run<T: Send>(&self, body: impl FnOnce() -> T + Send) -> T {
        let entered = || -> io::Result<T> {
            self.0.place()?.enter()?;
            Ok(body())
        };
        let result = thread::scope(|scope| {
            let thread = thread::Builder::new().name(self.0.name.clone()).spawn_scoped(scope, entered)?;
            thread.join().unwrap_or_else(|payload| resume_unwind(payload))
        });
        match result {
            Ok(value) => value,
            Err(error) => panic!("{}", self.not_there(&error)),
        }
    }

    /// Runs `body` on it, on a thread that is named after the host, and does not wait for that.
    ///
    /// If `body` panics, the test fails, and names the host. When the test's body is over, threads that still run are waited for: if one is busy for
    /// more than ten seconds, the test fails. Those that sleep, such as a server that waits for its next client, end with the body: join them if
    /// what they assert matters.
    ///
    /// # Panics
    ///
    /// If the laboratory is not up, or there can be no thread.
    ///
    /// ```test_harness
    /// # use belljar::isolated;
    /// # use belljar::net::Lab;
    /// #[isolated]
    /// #[should_panic(expected = "a thread on the host `server` panicked: no request")]
    /// fn names_the_host() {
    ///     let mut lab = Lab::new();
    ///     let server = lab.host("server");
    ///     let _net = lab.up().unwrap();
    ///     server.spawn(|| panic!("no request"));
    /// }
    /// ```
    #[track_caller]
    pub fn spawn<T: Send + 'static>(&self, body: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
        match threads::spawn(&self.0, body) {
            Ok(thread) => thread,
            Err(error) => panic!("{}", self.not_there(&error)),
        }
    }

    /// A program, to be started on it. It is the standard library's [`Command`], so that its output can be had and its end waited for.
    ///
    /// The program has the working directory that the command says, if that is there. It enters the host after [`Command`] has changed the user,
    /// and only root can enter. So don't set `uid`: let the program give up its rights itself.
    ///
    /// # Panics
    ///
    /// If the laboratory is not up, or there are too many open files.
    ///
    /// ```test_harness
    /// # use belljar::isolated;
    /// # use belljar::net::Lab;
    /// # #[isolated]
    /// # fn example() -> std::io::Result<()> {
    /// # let mut lab = Lab::new();
    /// # let host = lab.host("host");
    /// # let _net = lab.up()?;
    /// let output = host.command("cat").arg("/proc/net/dev").output()?;
    /// assert!(String::from_utf8_lossy(&output.stdout).contains("eth0"));
    /// # Ok(())
    /// # }
    /// ```
    #[track_caller]
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        match self.0.place().and_then(|place| place.have_run(&mut command)) {
            Ok(()) => command,
            Err(error) => panic!("{}", self.not_there(&error)),
        }
    }

    /// Moves this thread to it, until what this returns is dropped. Threads and processes that are started meanwhile are on the host, and
    /// stay there.
    ///
    /// If there are several such guards, the newest says where the thread is. To drop an older one moves nothing: when the newest is dropped, the
    /// thread then goes back past it.
    ///
    /// From now on, the working directory of this thread is its own: to change it changes that of no other thread.
    ///
    /// # Panics
    ///
    /// If the laboratory is not up. The guard panics if the thread can't go back.
    ///
    /// ```test_harness
    /// # use belljar::isolated;
    /// # use belljar::net::Lab;
    /// # #[isolated]
    /// # fn example() -> std::io::Result<()> {
    /// # let mut lab = Lab::new();
    /// # let server = lab.host("server");
    /// # let _net = lab.up()?;
    /// let listener = {
    ///     let _here = server.enter();
    ///     std::net::TcpListener::bind("10.0.0.1:80")?
    /// };
    /// assert!(std::net::TcpListener::bind("10.0.0.1:80").is_err(), "the test has no such address");
    /// # drop(listener);
    /// # Ok(())
    /// # }
    /// ```
    #[track_caller]
    #[must_use = "when this is dropped, the thread goes back"]
    pub fn enter(&self) -> Entered {
        match self.0.place().and_then(entered::enter) {
            Ok(number) => Entered { number, of_this_thread: PhantomData },
            Err(error) => panic!("{}", self.not_there(&error)),
        }
    }

    /// Its namespaces: of its network, its name and its mounts.
    ///
    /// # Panics
    ///
    /// If the laboratory is not up.
    ///
    /// ```test_harness
    /// # use belljar::isolated;
    /// # use belljar::net::Lab;
    /// use belljar::ns::{Kind, Namespace};
    ///
    /// # #[isolated]
    /// # fn example() -> std::io::Result<()> {
    /// # let mut lab = Lab::new();
    /// # let host = lab.host("host");
    /// # let _net = lab.up()?;
    /// let daemon = host.command("sleep").arg("1000").spawn()?;
    /// let network = host.namespaces().iter().find(|namespace| namespace.kind() == Kind::Net).unwrap();
    /// assert_eq!(*network, Namespace::of(daemon.id(), Kind::Net)?);
    /// # Ok(())
    /// # }
    /// ```
    #[track_caller]
    pub fn namespaces(&self) -> &[Namespace] {
        match self.0.place() {
            Ok(place) => place.namespaces(),
            Err(error) => panic!("{}", self.not_there(&error)),
        }
    }

    fn not_there(&self, error: &io::Error) -> String {
        match error.kind() {
            io::ErrorKind::NotConnected => error.to_string(),
            _ => format!("belljar: nothing can be done on the host `{}`: {}", self.0.name, why(error)),
        }
    }
}

impl AsRef<Host> for Host {
    fn as_ref(&self) -> &Host {
        self
    }
}

impl Debug for Host {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "Host({})", self.0.name)
    }
}

/// A host that forwards packets between the networks that it is linked with. [`Lab::router`](super::Lab::router) makes one, and it can do what a
/// [`Host`] can.
///
/// ```test_harness
/// # use belljar::isolated;
/// # use belljar::net::Lab;
/// # #[isolated]
/// # fn example() {
/// let mut lab = Lab::new();
/// let (inside, gateway, outside) = (lab.host("inside"), lab.router("gateway"), lab.host("outside"));
/// lab.link(&inside, &gateway);
/// lab.link(&gateway, &outside);
/// let _net = lab.up().unwrap();
/// let _server = outside.run(|| std::net::TcpListener::bind("[::]:80").unwrap());
/// inside.run(|| std::net::TcpStream::connect("outside:80").unwrap());
/// # }
/// ```
#[derive(Clone)]
pub struct Router(pub(super) Host);

impl Sealed for Router {
    fn node(&self) -> &Arc<Node> {
        &self.0.0
    }
}

impl End for Router {}

impl Router {
    /// Chooses an address of its first interface, as [`Host::address`] does. [`Link::address`](super::Link::address) does for others.
    ///
    /// ```
    /// # use belljar::net::Lab;
    /// # let mut lab = Lab::new();
    /// let gateway = lab.router("gateway").address("192.0.2.254/24");
    /// ```
    pub fn address(&self, address: &str) -> Self {
        Self(self.0.address(address))
    }

    /// Chooses the MAC address of its first interface, as [`Host::mac`] does.
    ///
    /// ```
    /// # use belljar::net::Lab;
    /// # let mut lab = Lab::new();
    /// let gateway = lab.router("gateway").mac("02:00:00:00:be:11");
    /// ```
    pub fn mac(&self, mac: &str) -> Self {
        Self(self.0.mac(mac))
    }

    /// Chooses how many bytes the packets of its first interface can have, as [`Host::mtu`] does.
    ///
    /// ```
    /// # use belljar::net::Lab;
    /// # let mut lab = Lab::new();
    /// let gateway = lab.router("gateway").mtu(1400);
    /// ```
    pub fn mtu(&self, bytes: u32) -> Self {
        Self(self.0.mtu(bytes))
    }

    /// Chooses the name of its first interface, as [`Host::interface`] does.
    ///
    /// ```
    /// # use belljar::net::Lab;
    /// # let mut lab = Lab::new();
    /// let gateway = lab.router("gateway").interface("lan0");
    /// ```
    pub fn interface(&self, name: &str) -> Self {
        Self(self.0.interface(name))
    }
}

impl AsRef<Host> for Router {
    fn as_ref(&self) -> &Host {
        self
    }
}

impl Deref for Router {
    type Target = Host;

    fn deref(&self) -> &Host {
        &self.0
    }
}

impl Debug for Router {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "Router({})", self.name())
    }
}

/// A thread on a host: see [`Host::enter`]. When this is dropped, the thread goes back to where it was.
#[derive(Debug)]
pub struct Entered {
    /// Its number, of this thread.
    number: u64,
    /// It must not be sent to another thread.
    of_this_thread: PhantomData<*const ()>,
}

impl Drop for Entered {
    fn drop(&mut self) {
        // Whatever followed would happen on the wrong host.
        if let Err(errno) = entered::leave(self.number) {
            panic!("belljar: this thread can't leave the host that it has entered: {}", crate::text::error(errno));
        }
    }
}
