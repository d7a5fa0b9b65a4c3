//! The kinds of namespaces.

/// A kind of namespaces. Each has a page in the manual: network_namespaces(7), say.
///
/// ```
/// # use belljar::ns::{Kind, Namespace};
/// for kind in [Kind::Net, Kind::Mount, Kind::Uts] {
///     assert_eq!(Namespace::current(kind)?.kind(), kind);
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Which cgroup shows as the root.
    Cgroup,
    /// System V objects and POSIX message queues.
    Ipc,
    /// The mount table.
    Mount,
    /// Interfaces, routes, firewall, ports.
    Net,
    /// The numbers of processes.
    Pid,
    /// The clocks that count from the start of the machine.
    Time,
    /// The numbers of users and groups, and the rights of root.
    User,
    /// The name of the host.
    Uts,
}

impl Kind {
    /// All of them.
    ///
    /// ```
    /// # use belljar::ns::{Kind, Namespace};
    /// for kind in Kind::ALL {
    ///     println!("{}", Namespace::current(kind)?);
    /// }
    /// # assert_eq!(Kind::ALL.map(Kind::name).concat(), "cgroupipcmntnetpidtimeuseruts");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub const ALL: [Self; 8] =
        [Self::Cgroup, Self::Ipc, Self::Mount, Self::Net, Self::Pid, Self::Time, Self::User, Self::Uts];

    /// The name that it has in `/proc/PID/ns`.
    ///
    /// ```
    /// # use belljar::ns::Kind;
    /// assert_eq!(Kind::Mount.name(), "mnt");
    /// assert_eq!(Kind::Net.name(), "net");
    /// ```
    pub fn name(self) -> &'static str {
        match self {
            Self::Cgroup => "cgroup",
            Self::Ipc => "ipc",
            Self::Mount => "mnt",
            Self::Net => "net",
            Self::Pid => "pid",
            Self::Time => "time",
            Self::User => "user",
            Self::Uts => "uts",
        }
    }

    pub(super) fn flag(self) -> libc::c_int {
        match self {
            Self::Cgroup => libc::CLONE_NEWCGROUP,
            Self::Ipc => libc::CLONE_NEWIPC,
            Self::Mount => libc::CLONE_NEWNS,
            Self::Net => libc::CLONE_NEWNET,
            Self::Pid => libc::CLONE_NEWPID,
            Self::Time => libc::CLONE_NEWTIME,
            Self::User => libc::CLONE_NEWUSER,
            Self::Uts => libc::CLONE_NEWUTS,
        }
    }
}
