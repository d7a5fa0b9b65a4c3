//! Where this process stands in the cgroup hierarchies that are mounted, and so where it may make cgroups of its own.
//! See cgroups(7), proc_pid_mountinfo(5) and proc_pid_cgroup(5).

use std::path::{Component, Path, PathBuf};

use super::controller::{Controller, NoCgroup};
use super::leaf::LEAF;
use crate::collect::CollectVec as _;
use crate::proc::{MOUNTINFO, Mount, OWN_CGROUPS, OwnCgroup, bytes_of, mounts_in, own_cgroups_in, text_of};
use crate::settings::settings;
use crate::sys::{errno_of, is_of_descriptors};

/// A mounted hierarchy, and the cgroup in it below which ours go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hierarchy {
    /// Whether it is the unified one.
    pub(super) v2: bool,
    /// Those of our controllers that it has.
    pub(super) controllers: Vec<Controller>,
    /// All of its controllers, as the kernel writes them. Nothing for the unified one.
    pub(super) names: String,
    /// The directory of that cgroup.
    pub(super) parent: PathBuf,
}

/// All hierarchies that have one of our controllers.
pub(super) fn hierarchies() -> Result<Vec<Hierarchy>, NoCgroup> {
    let read = |path: &str| bytes_of(path).map_err(|error| NoCgroup::new(Path::new(path), &error));
    let mut own = own_cgroups_in(&read(OWN_CGROUPS)?);
    if let Some(chosen) = chosen() {
        own.iter_mut().for_each(|own| own.path.clone_from(&chosen));
    }
    let mut found = Vec::new();
    for mount in mounts_in(&read(MOUNTINFO)?).into_iter().filter(|mount| is_v2(mount) || mount.kind == "cgroup") {
        // A mount that was made outside of our cgroup namespace shows paths that have no name here.
        let Some(own) = own.iter().find(|own| shows(&mount, own)) else { continue };
        let Ok(below) = own.path.strip_prefix(&mount.root) else { continue };
        if below.components().any(|component| component == Component::ParentDir) {
            // It is above all that is mounted here.
            continue;
        }
        let mut parent = mount.point.join(below);
        let v2 = is_v2(&mount);
        if v2 && parent.ends_with(LEAF) {
            // A test binary before us has moved this test run there.
            parent.pop();
        }
        let controllers = match v2 {
            false => Controller::among(own.controllers.split(',')),
            true => {
                let file = parent.join("cgroup.controllers");
                let text = text_of(&file).or_else(|error| match is_of_descriptors(errno_of(&error)) {
                    true => Err(NoCgroup::new(&file, &error)),
                    false => Ok(String::new()),
                })?;
                Controller::among(text.split_whitespace())
            }
        };
        let known = found.iter().any(|known: &Hierarchy| known.v2 == v2 && known.controllers == controllers);
        if !controllers.is_empty() && !known {
            found.push(Hierarchy { v2, controllers, names: own.controllers.clone(), parent });
        }
    }
    Ok(found)
}

/// The cgroup that the environment names: below it ours go, in place of this process's own.
pub(crate) fn chosen() -> Option<PathBuf> {
    settings().cgroup.clone()
}

/// The files `pids.max` that hold for this process and set a limit, each with that, and with how many there are.
pub(crate) fn limits_on_processes() -> Vec<(PathBuf, u64, u64)> {
    let number = |path: PathBuf| text_of(path).ok()?.trim().parse().ok();
    let limit = |cgroup: &Path| {
        let file = cgroup.join("pids.max");
        Some((file.clone(), number(file)?, number(cgroup.join("pids.current"))?))
    };
    let own =
        hierarchies().unwrap_or_default().into_iter().filter(|found| found.controllers.contains(&Controller::Pids));
    own.flat_map(|found| found.parent.ancestors().filter_map(limit).collect_vec()).collect_vec()
}

/// Whether `mount` shows the hierarchy in which this process is in `own`.
fn shows(mount: &Mount, own: &OwnCgroup) -> bool {
    let ours = Controller::among(own.controllers.split(','));
    let options = mount.options.to_string_lossy();
    match own.is_v2 {
        true => is_v2(mount),
        false => !is_v2(mount) && !ours.is_empty() && Controller::among(options.split(',')) == ours,
    }
}

/// Whether a mount of a cgroup file system is of the unified hierarchy.
fn is_v2(mount: &Mount) -> bool {
    mount.kind == "cgroup2"
}

/// For [`fuzzed`](crate::fuzzed): what the kernel writes about cgroups.
#[cfg(any(test, fuzzing))]
pub(crate) fn fuzz(bytes: &[u8]) {
    let mounts = mounts_in(bytes);
    for own in own_cgroups_in(bytes) {
        mounts.iter().for_each(|mount| {
            shows(mount, &own);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_read_and_matched() {
        let text = b"29 23 0:26 / /sys/fs/cgroup rw shared:9 - tmpfs tmpfs rw,mode=755\n\
                    30 29 0:27 / /sys/fs/cgroup/cpu,cpuacct rw shared:10 - cgroup cgroup rw,cpu,cpuacct\n\
                    31 29 0:28 /docker/1 /sys/fs/c\\040group/pids rw master:3 - cgroup none rw,pids\n\
                    32 29 0:29 /../.. /sys/fs/cgroup/unified ro - cgroup2 cgroup2 rw,nsdelegate\n";
        let mounts = mounts_in(text);
        let points = mounts.iter().map(|mount| (mount.point.to_str(), mount.root.to_str(), is_v2(mount)));
        let points: Vec<_> = points.skip(1).collect();
        let expected = [
            (Some("/sys/fs/cgroup/cpu,cpuacct"), Some("/"), false),
            (Some("/sys/fs/c group/pids"), Some("/docker/1"), false),
            (Some("/sys/fs/cgroup/unified"), Some("/../.."), true),
        ];
        assert_eq!(points, expected);
        let own = own_cgroups_in(b"3:pids:/docker/1/x\n2:cpuacct,cpu:/\n1:devices:/\n0::/\n");
        let matches = |at: usize| mounts.iter().map(move |mount| (at, mount));
        let found: Vec<_> = (0..own.len())
            .flat_map(matches)
            .filter(|(at, mount)| shows(mount, &own[*at]))
            .map(|(at, mount)| (at, mount.point.to_str().unwrap_or_default()))
            .collect();
        let expected = [(0, "/sys/fs/c group/pids"), (1, "/sys/fs/cgroup/cpu,cpuacct"), (3, "/sys/fs/cgroup/unified")];
        assert_eq!(found, expected);
    }
}
