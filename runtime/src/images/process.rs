//! What an image says of the processes that run in it: who they are, where they begin, and their environment.

use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::OFlag;

use super::error::ImageError;
use super::manifest::ProcessConfig;
use super::tree::Tree;
use crate::proc::text_in;
use crate::rootfs::unpacked::{Owned, Unpacked};

/// What an image says of its processes.
pub(super) fn described(process: &ProcessConfig, tree: &Tree, owned: Vec<Owned>) -> Result<Unpacked, ImageError> {
    let mut env: Vec<(String, String)> = Vec::new();
    for variable in &process.env {
        let (name, value) = variable.split_once('=').unwrap_or((variable, ""));
        if name.is_empty() || variable.contains('\0') {
            return Err(ImageError::new(
                variable,
                "the image sets this as an environment variable, but it has no name, or a NUL",
            ));
        }
        env.push((name.to_owned(), value.to_owned()));
    }
    if process.working_directory.as_ref().is_some_and(|path| path.contains('\0')) {
        return Err(ImageError::new("WorkingDir", "the image has a NUL in it"));
    }
    let text = |path: &str| match tree.file(Path::new(path)) {
        Err(Errno::ENOENT) => Ok(String::new()),
        Err(errno) => Err(ImageError::new(path, io::Error::from(errno))),
        Ok(file) => text_in(file.take(TEXT_MAX)).map_err(ImageError::at(path)),
    };
    let user = process.user.as_deref().filter(|user| !user.is_empty());
    let user = user.map(|user| User::find(user, &text("etc/passwd")?, &text("etc/group")?)).transpose()?;
    let working_directory = process.working_directory.as_ref().filter(|path| !path.is_empty());
    let working_directory = working_directory.map(|path| format!("/{}", path.trim_start_matches('/')));
    if let Some(path) = &working_directory {
        check_directory(tree, path, "the image has it as the working directory")?;
    }
    for path in ["/dev", "/proc", "/sys"] {
        check_directory(tree, path, "belljar mounts there")?;
    }
    let (user, home) = user.map(|user| (user.ids, user.home)).unzip();
    let user = user.filter(|ids| *ids != (0, 0));
    Ok(Unpacked { tree: PathBuf::new(), env, working_directory, user, home: home.flatten(), owned })
}

/// Fails if something else than a directory is in the way there. What is missing is made.
fn check_directory(tree: &Tree, path: &str, why: &str) -> Result<(), ImageError> {
    let opened = tree.open_in(Path::new(path.trim_start_matches('/')), OFlag::O_PATH | OFlag::O_DIRECTORY);
    match opened {
        Ok(_) | Err(Errno::ENOENT) => Ok(()),
        Err(errno) => Err(ImageError::new(path, format!("{why}, and it can't be entered: {}", io::Error::from(errno)))),
    }
}

/// The most bytes that are read of a list of users or groups.
const TEXT_MAX: u64 = 16 << 20;

/// Who the processes of an image are.
struct User {
    ids: (u32, u32),
    home: Option<String>,
}

impl User {
    /// Finds `USER` or `USER:GROUP`, each a name or a number. See passwd(5) and group(5).
    fn find(written: &str, passwd: &str, group: &str) -> Result<Self, ImageError> {
        let (user, of_group) = written.split_once(':').map_or((written, None), |(user, group)| (user, Some(group)));
        // As in Docker, nobody is root, and no group is the user's.
        let user = if user.is_empty() { "0" } else { user };
        let of_group = of_group.filter(|group| !group.is_empty());
        let find = |text: &'_ str, name: &str| {
            let mut lines = text.lines().map(|line| line.split(':').map(str::to_owned).collect::<Vec<_>>());
            lines.find(|fields| {
                fields.first().is_some_and(|first| first == name) || fields.get(2).is_some_and(|number| number == name)
            })
        };
        let unknown = |name: &str, file: &str| {
            ImageError::new(written, format!("the image names this user, and its {file} has no `{name}`"))
        };
        let number = |fields: &Vec<String>, at: usize| fields.get(at).and_then(|field| field.parse().ok());
        let fields = find(passwd, user);
        let uid = fields.as_ref().and_then(|fields| number(fields, 2)).or_else(|| user.parse().ok());
        let uid = uid.ok_or_else(|| unknown(user, "/etc/passwd"))?;
        let gid = match of_group {
            Some(name) => {
                let found = find(group, name).and_then(|fields| number(&fields, 2)).or_else(|| name.parse().ok());
                found.ok_or_else(|| unknown(name, "/etc/group"))?
            }
            None => fields.as_ref().and_then(|fields| number(fields, 3)).unwrap_or(0),
        };
        if uid.max(gid) == u32::MAX {
            return Err(ImageError::new(written, "the image names this user, and the last of all numbers is nobody's"));
        }
        let home = fields.and_then(|fields| fields.get(5).cloned());
        let home = home.filter(|home| home.starts_with('/') && !home.contains('\0'));
        Ok(Self { ids: (uid, gid), home })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_found() {
        let passwd = "root:x:0:0::/root:/bin/sh\nweb:x:33:34::/srv:/bin/sh\n";
        let group = "root:x:0:\nlog:x:4:\n";
        let find = |written| User::find(written, passwd, group).map(|user| (user.ids, user.home));
        let srv = || Some("/srv".to_owned());
        assert_eq!(find("web"), Ok(((33, 34), srv())));
        assert_eq!(find("33"), Ok(((33, 34), srv())));
        assert_eq!(find("web:log"), Ok(((33, 4), srv())));
        assert_eq!(find("web:7"), Ok(((33, 7), srv())));
        assert_eq!(find("1000"), Ok(((1000, 0), None)));
        assert_eq!(find(":5"), Ok(((0, 5), Some("/root".to_owned()))));
        assert_eq!(find("web:"), Ok(((33, 34), srv())));
        assert!(find("4294967295").is_err());
        assert!(find("nobody").is_err_and(|trouble| trouble.to_string().contains("/etc/passwd")));
        assert!(find("web:nobody").is_err_and(|trouble| trouble.to_string().contains("/etc/group")));
        assert_eq!(User::find("5:6", "", "").map(|user| user.ids), Ok((5, 6)));
    }
}
