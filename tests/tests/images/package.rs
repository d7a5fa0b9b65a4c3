//! A package whose tests have images.

use std::env;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use belljar_tests::{Run, refusal_of_copies, run, this_binary};

use crate::made::Files;

/// A directory with images in it, and a target directory of its own.
pub(crate) struct Package(tempfile::TempDir);

impl Package {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).expect("chmod");
        let deps = directory.path().join("target/debug/deps");
        fs::create_dir_all(&deps).expect("mkdir");
        fs::write(directory.path().join("target/CACHEDIR.TAG"), "").expect("write");
        // If this process wrote it, another test that forks could have it open for writing, and it could not be run.
        let mut copy = Command::new("cp");
        copy.arg(env::current_exe().expect("this binary")).arg(deps.join("images"));
        assert!(copy.status().expect("cp").success());
        Self(directory)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn add(&self, name: &str, content: &[u8]) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("mkdir");
        fs::write(path, content).expect("write");
    }

    pub(crate) fn add_all(&self, directory: &str, files: &Files) {
        files.iter().for_each(|(name, content)| self.add(&format!("{directory}/{name}"), content));
    }

    /// A layout with one of the images of another.
    pub(crate) fn take_tag(&self, layout: &Path, tag: &str) {
        let (from, to) = (format!("oci:{}:{tag}", layout.display()), format!("oci:{}", self.path("layout").display()));
        let status = Command::new("skopeo").args(["--insecure-policy", "copy", "--quiet", &from, &to]).status();
        assert!(status.expect("skopeo").success());
    }

    /// A command that runs bodies of this package.
    pub(crate) fn bodies(&self, arguments: &[&str]) -> Command {
        let old = this_binary();
        let mut command = Command::new(self.path("target/debug/deps/images"));
        for (name, value) in old.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command.env("CARGO_MANIFEST_DIR", self.0.path()).env_remove("CI").env_remove("BELLJAR_UNSUPPORTED");
        command.args(["--exact", "--show-output", "body"]).args(arguments);
        command
    }

    pub(crate) fn run(&self, body: &str) -> Run {
        let run = run(&mut self.bodies(&[body]));
        assert!(run.left.is_empty(), "{}", run.output);
        run
    }

    /// Runs this body, which passes where there are copies. Returns what it wrote.
    pub(crate) fn passes(&self, body: &str) -> String {
        let run = self.run(body);
        match refusal_of_copies() {
            None => assert!(run.passed(), "{}", run.output),
            Some(words) => {
                let is_told = |word: &&str| run.output.contains(word);
                assert!(run.failed() && words.iter().all(is_told), "{}", run.output);
            }
        }
        run.output
    }

    /// Runs this body, which fails and says all of this.
    pub(crate) fn fails(&self, body: &str, words: &[&str]) {
        let run = self.run(body);
        assert!(run.failed(), "{}", run.output);
        for word in words {
            assert!(run.output.contains(word), "{word:?} is not in this:\n{}", run.output);
        }
    }

    /// What was unpacked, by the names of the directories.
    pub(crate) fn unpacked(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.path("target/belljar-images")).into_iter().flatten().flatten();
        let mut paths: Vec<_> = entries.map(|entry| entry.path()).collect();
        paths.sort();
        paths
    }
}
