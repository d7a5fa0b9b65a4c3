//! Cgroups that a test makes below its own. The test binary makes them, and hands the test the descriptors by which they are
//! used: in version 1, a test could not do that by itself.

use std::fs::{self, File};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::controller::{Controller, NoCgroup};
use super::directory::{Directory, Location};
use super::of_sandbox::Cgroup;
use super::run::run;
use crate::collect::CollectVec as _;
use crate::frame::PAYLOAD_MAX;
use crate::proc::text_in;
use crate::text::plain;

/// A group, as the test gets it: a directory for each hierarchy, and in the same order what is to be known of them.
pub(crate) struct GroupHandle {
    descriptions: Vec<u8>,
    directories: Vec<OwnedFd>,
}

/// What a test gets in place of a group.
pub(crate) struct NoGroup {
    /// What the kernel said, if it was that.
    pub(crate) errno: Option<Errno>,
    /// What to tell.
    pub(crate) text: String,
}

impl GroupHandle {
    pub(crate) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.directories.iter().map(|directory| directory.as_fd())
    }

    /// Whether a group may have this name.
    pub(crate) fn is_name(name: &str) -> bool {
        !matches!(name, "" | "." | "..")
            && name.len() <= 255
            && !name.starts_with("belljar.")
            && !name.contains(['/', '\n', '\0'])
    }

    /// The message that stands for this, but for its descriptors; or for what there is in its place.
    pub(crate) fn encode(made: &Result<Self, NoGroup>) -> Vec<u8> {
        match made {
            Ok(handed) => [&[0], handed.descriptions.as_slice()].concat(),
            Err(NoGroup { errno, text }) => {
                let errno = errno.map_or(0, |errno| errno as i32).to_ne_bytes();
                let end = text.len().min(PAYLOAD_MAX - 1 - errno.len());
                [&[1], errno.as_slice(), &text.as_bytes()[..end]].concat()
            }
        }
    }

    /// `None` if it is no such message.
    pub(crate) fn decode(message: &[u8], directories: Vec<OwnedFd>) -> Option<Result<Vec<Directory>, NoGroup>> {
        match message {
            // The kernel passes on no more than this process may have.
            [0, descriptions @ ..] if descriptions.len() != directories.len() => {
                Some(Err(NoGroup { errno: Some(Errno::EMFILE), text: too_many_descriptors() }))
            }
            [0, descriptions @ ..] => Some(Ok(Self::receive(descriptions, directories))),
            [1, e0, e1, e2, e3, text @ ..] => {
                let errno = Some(i32::from_ne_bytes([*e0, *e1, *e2, *e3])).filter(|errno| *errno != 0);
                let text = String::from_utf8_lossy(text).into_owned();
                Some(Err(NoGroup { errno: errno.map(Errno::from_raw), text }))
            }
            _ => None,
        }
    }

    fn receive(descriptions: &[u8], directories: Vec<OwnedFd>) -> Vec<Directory> {
        let directory = |(description, directory): (&u8, OwnedFd)| Directory {
            v2: description & V2 != 0,
            location: Location::Open(directory),
            controllers: Controller::ALL
                .into_iter()
                .filter(|controller| description & bit(*controller) != 0)
                .collect_vec(),
        };
        descriptions.iter().zip(directories).map(directory).collect_vec()
    }
}

const V2: u8 = 0x80;

fn bit(controller: Controller) -> u8 {
    1 << controller as u8
}

impl Cgroup {
    /// Makes a group of this name.
    pub(crate) fn make_group(&mut self, name: &str) -> Result<GroupHandle, NoCgroup> {
        let mut made = GroupHandle { descriptions: Vec::new(), directories: Vec::new() };
        let mut refused = NoCgroup::Missing(Controller::Pids);
        let mut paths = Vec::new();
        let mut run = run();
        for hierarchy in run.hierarchies()? {
            let is_own = |directory: &&Directory| directory.path_of("").starts_with(&hierarchy.parent);
            let own = self.directories.iter().find(is_own);
            let below = match own {
                Some(Directory { v2: true, location: Location::Path(path), .. }) => run
                    .run_directory(&hierarchy)
                    .and_then(|place| place.divide(path))
                    .map(|controllers| (path.clone(), controllers)),
                Some(Directory { location: Location::Path(path), .. }) => {
                    Ok((path.clone(), hierarchy.controllers.clone()))
                }
                _ if hierarchy.v2 => continue,
                // The sandbox has no cgroup in this hierarchy: an empty one is made, to hold its groups.
                _ => run.make_one(&hierarchy).map(|directory| {
                    let path = directory.path_of("");
                    self.directories.push(directory);
                    (path, hierarchy.controllers.clone())
                }),
            };
            // Where a controller is missing, whoever sets a limit of its kind is told.
            let (path, controllers) = match below {
                Ok((path, controllers)) => (path.join(name), controllers),
                Err(trouble) => {
                    refused = trouble;
                    continue;
                }
            };
            match open_new(&path) {
                Ok(directory) => {
                    let v2 = if hierarchy.v2 { V2 } else { 0 };
                    made.descriptions.push(controllers.iter().fold(v2, |bits, controller| bits | bit(*controller)));
                    made.directories.push(directory);
                    paths.push(path);
                }
                // All of it or nothing.
                Err(trouble) => {
                    paths.iter().for_each(|path| drop(fs::remove_dir(path)));
                    return Err(trouble);
                }
            }
        }
        if made.directories.is_empty() { Err(refused) } else { Ok(made) }
    }

    /// Removes the group of this name, which nobody has been told of.
    pub(crate) fn remove_group(&self, name: &str) {
        for directory in &self.directories {
            if let Location::Path(path) = &directory.location {
                let _ = fs::remove_dir(path.join(name));
            }
        }
    }
}

/// What a test does with its groups.
impl Directory {
    pub(crate) fn is_v2(&self) -> bool {
        self.v2
    }

    /// Of version 2: freezes it or thaws it, and waits until it is so.
    pub(crate) fn freeze(&self, freeze: bool) -> Result<(), NoCgroup> {
        let wanted = u64::from(freeze);
        self.write("cgroup.freeze", &wanted.to_string())?;
        loop {
            // Opened before it is read: the kernel tells of what changes after that.
            let events = self.open(CGROUP_EVENTS, OFlag::O_RDONLY)?;
            let text = text_in(&events).map_err(|error| NoCgroup::new(Path::new(CGROUP_EVENTS), &error))?;
            if text.lines().any(|line| line == format!("frozen {wanted}")) {
                return Ok(());
            }
            let _ = poll(&mut [PollFd::new(events.as_fd(), PollFlags::POLLPRI)], PollTimeout::NONE);
        }
    }

    /// Of version 2: kills all in it, if the kernel can.
    pub(crate) fn kill(&self) {
        let _ = self.write("cgroup.kill", "1");
    }
}

/// The file that tells whether there are processes, and whether they are frozen.
const CGROUP_EVENTS: &str = "cgroup.events";

fn open_new(path: &Path) -> Result<OwnedFd, NoCgroup> {
    let made = fs::create_dir(path).and_then(|()| File::open(path));
    made.map(OwnedFd::from).map_err(|error| NoCgroup::new(path, &error))
}

/// The host refuses something to a group. `cause` is why, to follow a semicolon, if that is known.
pub(crate) fn refused(group: &str, trouble: &NoCgroup, cause: Option<&str>) -> String {
    let cause = cause.map_or(String::new(), |cause| format!("; {cause}"));
    let place = match trouble {
        NoCgroup::Missing(_) | NoCgroup::Ends { .. } => String::new(),
        NoCgroup::Foreign { path, .. } | NoCgroup::Refused { path, .. } => format!("{}: ", plain(path.display())),
    };
    format!("belljar: the host refuses what the group `{group}` asks for: {place}{trouble}{cause}.")
}

fn too_many_descriptors() -> String {
    "belljar: no group: this process may have no more open files. Each group needs up to five; close some, or raise the limit \
     (`ulimit -n`)."
        .to_owned()
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::*;
    use crate::text::snapshots::page;

    #[test]
    fn each_refusal_has_its_words() {
        let path = || "/sys/fs/cgroup/a\n".into();
        let crowd = (0..12).map(|number| number.to_string()).collect();
        let troubles = [
            NoCgroup::Missing(Controller::Memory),
            NoCgroup::Foreign { path: path(), names: Vec::new() },
            NoCgroup::Foreign { path: path(), names: crowd },
            NoCgroup::Ends { unit: "ci.service".to_owned(), policy: "kill".to_owned() },
            NoCgroup::Refused { path: path(), errno: Errno::EROFS },
        ];
        let told = troubles.iter().map(|trouble| ("refused", refused("group", trouble, None)));
        let because = ("refused", refused("group", &troubles[0], Some("CAUSE")));
        assert_snapshot!(page(told.chain([because, ("too_many_descriptors", too_many_descriptors())])), @r#"
        # refused
        belljar: the host refuses what the group `group` asks for: no hierarchy that could be reached has the controller `memory`.
        # refused
        belljar: the host refuses what the group `group` asks for: /sys/fs/cgroup/a\n: it holds processes that are not of this test run, and so can't be divided.
        # refused
        belljar: the host refuses what the group `group` asks for: /sys/fs/cgroup/a\n: it holds processes that are not of this test run (`0`, `1`, `2`, `3`, `4`, `5`, `6`, `7`, `8`, `9`), and so can't be divided.
        # refused
        belljar: the host refuses what the group `group` asks for: a test that is killed when its memory is used up would end `ci.service`, and the run in it.
        # refused
        belljar: the host refuses what the group `group` asks for: /sys/fs/cgroup/a\n: EROFS (Read-only file system).
        # refused
        belljar: the host refuses what the group `group` asks for: no hierarchy that could be reached has the controller `memory`; CAUSE.
        # too_many_descriptors
        belljar: no group: this process may have no more open files. Each group needs up to five; close some, or raise the limit (`ulimit -n`).
        "#);
    }
}
