//! Maps a range of ids for a sandbox, which takes rights that the sandbox itself doesn't have: root's, or those that /etc/subuid
//! and /etc/subgid give, by newuidmap(1) and newgidmap(1). See user_namespaces(7).

use std::fs;
use std::io::ErrorKind;
use std::process::{Command, Stdio};

use nix::errno::Errno;
use nix::unistd::{User, getegid, geteuid};

use super::judge::OwnedRefusal;
use crate::message::Cause;
use crate::report::Step;
use crate::sys::errno_of;

/// A map of one kind of ids.
struct Kind {
    /// The name of the file of the process.
    map: &'static str,
    /// Who writes it for ordinary users.
    program: &'static str,
    /// Which ids they may use.
    table: &'static str,
}

const KINDS: [Kind; 2] = [
    Kind { map: "uid_map", program: "newuidmap", table: "/etc/subuid" },
    Kind { map: "gid_map", program: "newgidmap", table: "/etc/subgid" },
];

/// Gives init, `pid` outside, the ids from 0 to `count`. To root's, they are the same as outside. An ordinary user is root, and the others
/// are subordinate ids.
pub(super) fn map(pid: u32, count: u32) -> Result<(), OwnedRefusal> {
    for (kind, own) in KINDS.iter().zip([geteuid().as_raw(), getegid().as_raw()]) {
        if geteuid().is_root() {
            let path = format!("/proc/{pid}/{}", kind.map);
            fs::write(&path, format!("0 0 {count}\n")).map_err(|error| OwnedRefusal {
                step: Step::MapIds,
                path,
                errno: errno_of(&error),
                cause: Some(Cause::ids_are_missing(
                    count,
                    &fs::read_to_string("/proc/self/uid_map").unwrap_or_default(),
                )),
            })?;
        } else {
            map_by_program(kind, pid, own, count)?;
        }
    }
    Ok(())
}

fn map_by_program(kind: &Kind, pid: u32, own: u32, count: u32) -> Result<(), OwnedRefusal> {
    let refused = |path: &str, errno, cause| OwnedRefusal { step: Step::MapIds, path: path.to_owned(), errno, cause };
    let uid = geteuid();
    let user = User::from_uid(uid).ok().flatten().map_or_else(|| uid.to_string(), |user| user.name);
    let table = fs::read_to_string(kind.table).unwrap_or_default();
    let (mut arguments, mut inside) = (vec![pid, 0, own, 1], 1);
    for (start, length) in ranges(&table, &user, uid.as_raw()) {
        let length = length.min(count - inside);
        arguments.extend([inside, start, length]);
        inside += length;
        if inside == count {
            break;
        }
    }
    if inside < count {
        return Err(refused(
            kind.table,
            Errno::ENOENT,
            Some(Cause::no_subordinate_ids(&user, kind.table, inside - 1, count - 1)),
        ));
    }
    let mut command = Command::new(kind.program);
    let output = command.args(arguments.iter().map(u32::to_string)).stdin(Stdio::null()).output();
    match output {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            Err(refused(kind.table, Errno::EPERM, Some(Cause::program_refuses(kind.program, &said))))
        }
        Err(error) => {
            let missing = error.kind() == ErrorKind::NotFound;
            Err(refused(kind.table, errno_of(&error), missing.then(|| Cause::no_program(kind.program))))
        }
    }
}

/// The ranges that a table as of subuid(5) gives to a user: where each begins, and how long it is.
fn ranges(table: &str, user: &str, uid: u32) -> Vec<(u32, u32)> {
    let uid = uid.to_string();
    let range = |line: &str| {
        let mut fields = line.trim().split(':');
        let name = fields.next()?;
        let (start, length) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        (name == user || name == uid).then_some((start, length))
    };
    table.lines().filter_map(range).filter(|(_, length)| *length > 0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_read() {
        let table = "root:1:2\nann:100000:65536\n# ann:1\n1000:7:1\nanna:5:5\nann:9:0\n";
        assert_eq!(ranges(table, "ann", 1000), [(100_000, 65536), (7, 1)]);
        assert!(ranges(table, "nobody", 65534).is_empty());
    }
}
