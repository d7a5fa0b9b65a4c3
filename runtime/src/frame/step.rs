//! The steps in which a sandbox is set up, and the other moments of its life.

use std::fmt::{self, Display, Formatter};

/// Makes an enum of the steps, and a list of all. What a step does is its documentation too.
macro_rules! steps {
    ($($step:ident: $what:literal,)*) => {
        /// A step of the set-up: what was being done when the host refused.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub(crate) enum Step {
            $(#[doc = $what] $step,)*
        }

        impl Step {
            /// All of them, by their numbers.
            pub(crate) const ALL: &[Self] = &[$(Self::$step),*];

            /// What is done, to follow "could not".
            pub(crate) const fn what(self) -> &'static str {
                match self {
                    $(Self::$step => $what,)*
                }
            }
        }
    };
}

steps! {
    Cgroup: "make a cgroup with the limits of the test",
    ForkZygote: "fork the zygote, which makes all sandboxes",
    Zygote: "prepare the zygote, which makes all sandboxes",
    Template: "make the user and mount namespaces that sandboxes begin in",
    Clone: "clone init into new user and pid namespaces",
    Birth: "send a descriptor of init to the test binary",
    JoinCgroup: "join the cgroup",
    ProcessLimit: "limit processes and threads",
    Session: "begin a session that ends with the template",
    Descriptors: "put the standard streams in place",
    HostIds: "do without a user namespace",
    MapIds: "map the ids of the user namespace",
    Namespaces: "enter new mount, network, ipc, uts and cgroup namespaces",
    Keyring: "begin an empty session keyring",
    Clocks: "enter a new time namespace and set its clocks",
    Hostname: "set the host name",
    Loopback: "bring up the interface lo",
    Prepared: "take what a preparation has left",
    Propagation: "make the mount table private",
    Root: "mount a tmpfs for the root",
    Directory: "make a directory in the sandbox",
    Symlink: "make a symbolic link in the sandbox",
    File: "write a file in the sandbox",
    Bind: "show a path of the host in the sandbox",
    MountPoint: "find the place in the sandbox for a path of the host",
    ReadOnly: "make a path read-only in the sandbox",
    Mount: "mount a file system in the sandbox",
    Copy: "lay a private copy over a tree of the host",
    Pivot: "make the new root the root",
    WorkingDirectory: "enter the working directory",
    Fork: "fork the test's process",
    Process: "prepare the test's process",
    User: "become the user that the test asks for",
    Thread: "start the thread of the body",
    Wait: "wait for the test's process",
}

impl Display for Step {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(self.what())
    }
}

/// A moment in the life of a sandbox, for traces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moment {
    /// A step is done.
    Done(Step),
    /// The template takes up the request.
    Requested,
    /// Init runs.
    Begins,
    /// The test's process is there, and waits for its test.
    Waits,
    /// It has got one.
    Told,
    BodyBegins,
    BodyEnds,
    /// The test binary knows that the test's process has ended.
    Ended,
}

impl Moment {
    pub(super) const OTHERS: [Self; 7] =
        [Self::Requested, Self::Begins, Self::Waits, Self::Told, Self::BodyBegins, Self::BodyEnds, Self::Ended];

    /// Steps come first.
    pub(super) fn number(self) -> u8 {
        match self {
            Self::Done(step) => step as u8,
            other => {
                let at = Self::OTHERS.iter().position(|moment| *moment == other).unwrap_or_default();
                (Step::ALL.len() + at) as u8
            }
        }
    }

    pub(super) fn from_number(number: u8) -> Option<Self> {
        let at = usize::from(number);
        let step = Step::ALL.get(at).copied().map(Self::Done);
        step.or_else(|| Self::OTHERS.get(at.checked_sub(Step::ALL.len())?).copied())
    }
}
