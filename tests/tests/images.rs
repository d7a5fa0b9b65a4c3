//! Images as roots, with the feature `images`. The images are made here, entry by entry; `others_unpack_the_same` looks at those of other programs.

use std::fs::{self, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use std::{env, thread};

use belljar::{Change, isolated, prepared};
use belljar_tests::{Run, as_runner, body, refusal_of_copies, rounds, run, this_binary};
use tar::{EntryType, Header};

belljar_tests::bodies!();

// ---- Images, as other programs write them ----

/// A layer, or a tree.
struct Layer(tar::Builder<Vec<u8>>);

/// When all files were changed: in 2001.
const TIME: u64 = 1_000_000_000;

impl Layer {
    fn new() -> Self {
        Self(tar::Builder::new(Vec::new()))
    }

    /// One entry. Its name is taken as it is.
    fn entry(
        mut self,
        kind: EntryType,
        name: &str,
        mode: u32,
        owner: (u64, u64),
        content: &[u8],
        target: &str,
    ) -> Self {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(owner.0);
        header.set_gid(owner.1);
        header.set_mtime(TIME);
        header.set_size(content.len() as u64);
        let old = header.as_old_mut();
        old.name[..name.len()].copy_from_slice(name.as_bytes());
        old.linkname[..target.len()].copy_from_slice(target.as_bytes());
        header.set_cksum();
        self.0.append(&header, content).expect("append");
        self
    }

    fn file(self, name: &str, content: &str) -> Self {
        self.entry(EntryType::Regular, name, 0o644, (0, 0), content.as_bytes(), "")
    }

    fn directory(self, name: &str) -> Self {
        self.entry(EntryType::Directory, name, 0o755, (0, 0), b"", "")
    }

    fn link(self, name: &str, target: &str) -> Self {
        self.entry(EntryType::Symlink, name, 0o777, (0, 0), b"", target)
    }

    fn hard_link(self, name: &str, target: &str) -> Self {
        self.entry(EntryType::Link, name, 0o644, (0, 0), b"", target)
    }

    fn bytes(self) -> Vec<u8> {
        self.0.into_inner().expect("finish")
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).and_then(|()| encoder.finish()).expect("gzip")
}

/// In two frames, as some tools write it.
fn zstd(bytes: &[u8]) -> Vec<u8> {
    let (first, second) = bytes.split_at(bytes.len() / 2);
    [first, second].map(|part| zstd::encode_all(part, 1).expect("zstd")).concat()
}

fn plain(bytes: &[u8]) -> Vec<u8> {
    bytes.to_vec()
}

/// Files, by their names.
type Files = Vec<(String, Vec<u8>)>;

/// An image in the layout of OCI, with this tag.
fn layout(layers: &[Vec<u8>], process: &str, tag: &str) -> Files {
    layout_of(&[(tag, "amd64", layers, process)])
}

/// Several images in one layout, each with a tag, an architecture, layers, and what it says of its processes.
fn layout_of(images: &[(&str, &str, &[Vec<u8>], &str)]) -> Files {
    let mut files = vec![("oci-layout".to_owned(), br#"{"imageLayoutVersion": "1.0.0"}"#.to_vec())];
    let mut count = 0;
    let mut blob = |files: &mut Files, content: Vec<u8>| {
        count += 1;
        let hash = format!("{count:064x}");
        files.push((format!("blobs/sha256/{hash}"), content));
        format!("sha256:{hash}")
    };
    let mut manifests = Vec::new();
    for (tag, architecture, layers, process) in images {
        let layers: Vec<_> = layers
            .iter()
            .map(|layer| {
                format!(r#"{{"mediaType": "layer", "digest": "{}", "size": 1}}"#, blob(&mut files, layer.clone()))
            })
            .collect();
        let config = format!(r#"{{"architecture": "{architecture}", "os": "linux", "config": {process}}}"#);
        let config = blob(&mut files, config.into());
        let manifest = format!(
            r#"{{"schemaVersion": 2, "config": {{"digest": "{config}", "size": 1}}, "layers": [{}]}}"#,
            layers.join(", ")
        );
        let manifest = blob(&mut files, manifest.into());
        manifests.push(format!(
            r#"{{"digest": "{manifest}", "size": 1, "platform": {{"architecture": "{architecture}", "os": "linux"}}, "annotations": {{"org.opencontainers.image.ref.name": "{tag}"}}}}"#
        ));
    }
    let index = format!(r#"{{"schemaVersion": 2, "manifests": [{}]}}"#, manifests.join(", "));
    files.push(("index.json".to_owned(), index.into()));
    files
}

/// What `docker save` writes, up to version 24: the second of two equal layers is a link.
fn saved(layers: &[Vec<u8>], process: &str) -> Vec<u8> {
    let mut archive = Layer::new();
    let mut names = Vec::new();
    for (number, layer) in layers.iter().enumerate() {
        let (directory, name) = (format!("{number:064x}/"), format!("{number:064x}/layer.tar"));
        archive = archive.directory(&directory);
        archive = match layers[..number].iter().position(|other| other == layer) {
            Some(same) => archive.link(&name, &format!("../{same:064x}/layer.tar")),
            None => archive.entry(EntryType::Regular, &name, 0o644, (0, 0), layer, ""),
        };
        names.push(format!("\"{name}\""));
    }
    let manifest =
        format!(r#"[{{"Config": "config.json", "RepoTags": ["image:latest"], "Layers": [{}]}}]"#, names.join(", "));
    archive.file("config.json", &format!(r#"{{"config": {process}}}"#)).file("manifest.json", &manifest).bytes()
}

/// The same files in an archive.
fn archived(files: &Files) -> Vec<u8> {
    let add = |archive: Layer, (name, content): &(String, Vec<u8>)| {
        archive.entry(EntryType::Regular, name, 0o644, (0, 0), content, "")
    };
    files.iter().fold(Layer::new(), add).bytes()
}

// ---- A package whose tests have images ----

/// A directory with images in it, and a target directory of its own.
struct Package(tempfile::TempDir);

impl Package {
    fn new() -> Self {
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

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn add(&self, name: &str, content: &[u8]) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("mkdir");
        fs::write(path, content).expect("write");
    }

    fn add_all(&self, directory: &str, files: &Files) {
        files.iter().for_each(|(name, content)| self.add(&format!("{directory}/{name}"), content));
    }

    /// A layout with one of the images of another.
    fn take_tag(&self, layout: &Path, tag: &str) {
        let (from, to) = (format!("oci:{}:{tag}", layout.display()), format!("oci:{}", self.path("layout").display()));
        let status = Command::new("skopeo").args(["--insecure-policy", "copy", "--quiet", &from, &to]).status();
        assert!(status.expect("skopeo").success());
    }

    /// A command that runs bodies of this package.
    fn bodies(&self, arguments: &[&str]) -> Command {
        let old = this_binary();
        let mut command = Command::new(self.path("target/debug/deps/images"));
        for (name, value) in old.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command.env("CARGO_MANIFEST_DIR", self.0.path()).env_remove("CI").env_remove("BELLJAR_UNSUPPORTED");
        command.args(["--ignored", "--show-output", "body"]).args(arguments);
        command
    }

    fn run(&self, body: &str) -> Run {
        let run = run(&mut self.bodies(&["--exact", body]));
        assert!(run.left.is_empty(), "{}", run.output);
        run
    }

    /// Runs this body, which passes where there are copies. Returns what it wrote.
    fn passes(&self, body: &str) -> String {
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
    fn fails(&self, body: &str, words: &[&str]) {
        let run = self.run(body);
        assert!(run.failed(), "{}", run.output);
        for word in words {
            assert!(run.output.contains(word), "{word:?} is not in this:\n{}", run.output);
        }
    }

    /// What was unpacked, by the names of the directories.
    fn unpacked(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.path("target/belljar-images")).into_iter().flatten().flatten();
        let mut paths: Vec<_> = entries.map(|entry| entry.path()).collect();
        paths.sort();
        paths
    }
}

// ---- Layers lie one over another ----

fn layers() -> Vec<Vec<u8>> {
    let lowest = Layer::new()
        .directory("./")
        .directory("etc/")
        .file("etc/kept", "kept")
        .file("etc/gone", "")
        .file("etc/changed", "long ago")
        .directory("opaque/")
        .file("opaque/lower", "")
        .directory("opaque/below/")
        .file("opaque/below/lower", "")
        .directory("late/")
        .file("late/lower", "")
        .directory("removed/")
        .file("removed/file", "")
        .directory("becomes-a-file/")
        .file("becomes-a-file/file", "")
        .file("becomes-a-directory", "")
        .file("first", "linked")
        .hard_link("second", "first")
        .file("rewritten", "old")
        .hard_link("of-old", "./rewritten")
        .directory("real/")
        .link("link", "real")
        .link("absolute", "/real")
        .link("dangling", "../../nowhere")
        .entry(EntryType::Regular, "setuid", 0o4755, (0, 0), b"", "")
        .entry(EntryType::Regular, "closed", 0o000, (0, 0), b"secret", "")
        .entry(EntryType::Directory, "sticky/", 0o1777, (0, 0), b"", "")
        .entry(EntryType::Directory, "read-only/", 0o555, (0, 0), b"", "")
        .entry(EntryType::Fifo, "fifo", 0o600, (0, 0), b"", "")
        .entry(EntryType::Char, "null", 0o666, (0, 0), b"", "");
    let middle = Layer::new()
        .file("etc/.wh.gone", "")
        .file("etc/changed", "now")
        .file("opaque/.wh..wh..opq", "")
        .file("opaque/upper", "")
        .directory("late/")
        .file("late/upper", "")
        .file("late/.wh..wh..opq", "")
        .file(".wh.removed", "")
        .file(".wh.never-there", "")
        .file("becomes-a-file", "file")
        .directory("becomes-a-directory/")
        .file("becomes-a-directory/file", "")
        .hard_link("third", "first")
        .file("rewritten", "new")
        .file("link/through", "a link")
        .file("absolute/through-too", "another")
        .file("read-only/file", "");
    // The same again: nothing changes.
    let middle = middle.bytes();
    vec![lowest.bytes(), middle.clone(), middle]
}

fn names(directory: &str) -> Vec<String> {
    let entries = fs::read_dir(directory).expect(directory);
    let mut names: Vec<_> =
        entries.map(|entry| entry.expect("entry").file_name().into_string().expect("text")).collect();
    names.sort();
    names
}

fn read(path: &str) -> String {
    fs::read_to_string(path).expect(path)
}

/// Whether the root is what these layers make.
fn has_layers() {
    assert_eq!(names("/etc"), ["changed", "kept"]);
    assert_eq!((read("/etc/kept").as_str(), read("/etc/changed").as_str()), ("kept", "now"));
    assert_eq!((names("/opaque"), names("/late")), (vec!["upper".into()], vec!["upper".into()]));
    assert!(!Path::new("/removed").exists() && !Path::new("/null").exists());
    assert_eq!(read("/becomes-a-file"), "file");
    assert_eq!(names("/becomes-a-directory"), ["file"]);
    let inode = |path: &str| fs::metadata(path).expect(path).ino();
    assert!(inode("/first") == inode("/second") && inode("/first") == inode("/third"));
    assert_eq!((read("/rewritten").as_str(), read("/of-old").as_str()), ("new", "old"));
    assert_eq!(names("/real"), ["through", "through-too"]);
    assert_eq!(fs::read_link("/dangling").expect("link"), Path::new("../../nowhere"));
    let mode = |path: &str| fs::metadata(path).expect(path).mode() & 0o7777;
    assert_eq!((mode("/setuid"), mode("/closed")), (0o4755, 0));
    assert_eq!((mode("/sticky"), mode("/read-only"), mode("/")), (0o1777, 0o555, 0o755));
    assert_eq!(read("/closed"), "secret");
    assert!(fs::metadata("/fifo").expect("fifo").file_type().is_fifo());
    for path in ["/etc/kept", "/opaque", "/read-only", "/link", "/third"] {
        assert_eq!(fs::symlink_metadata(path).expect(path).mtime(), TIME as i64, "{path}");
    }
}

#[body]
#[isolated(root = "oci:layout")]
fn of_a_layout() {
    has_layers();
}

#[body]
#[isolated(root = "./image.tar")]
fn of_an_archive() {
    has_layers();
}

#[test]
fn layers_lie_one_over_another() {
    for compress in [plain, gzip, zstd] {
        let package = Package::new();
        let layers: Vec<_> = layers().iter().map(|layer| compress(layer)).collect();
        package.add_all("layout", &layout(&layers, "null", "latest"));
        package.passes("of_a_layout");
    }
}

#[test]
fn archives_hold_the_same() {
    for compress in [plain, gzip, zstd] {
        let package = Package::new();
        package.add("image.tar", &compress(&saved(&layers(), "{}")));
        package.passes("of_an_archive");
        package.add("image.tar", &compress(&archived(&layout(&layers(), "{}", "latest"))));
        package.passes("of_an_archive");
    }
}

/// The twin: what is checked is not there in other images.
#[test]
fn other_layers_are_noticed() {
    let package = Package::new();
    package.add("image.tar", &saved(&layers()[..1], "{}"));
    let run = package.run("of_an_archive");
    assert!(run.failed(), "{}", run.output);
}

#[body]
#[isolated(root = "tree.tar")]
fn of_a_tree() {
    assert_eq!(names("/data"), [".wh.file", "file"]);
    assert_eq!(read("/manifest.json"), "[1]");
}

/// An archive of a tree is no layer: nothing in it says that something is gone.
#[test]
fn trees_are_taken_as_they_are() {
    for compress in [plain, gzip, zstd] {
        let package = Package::new();
        let tree = Layer::new().directory("data/").file("data/file", "").file("data/.wh.file", "");
        package.add("tree.tar", &compress(&tree.file("manifest.json", "[1]").bytes()));
        package.passes("of_a_tree");
    }
}

// ---- What leads out is refused ----

#[test]
fn what_leads_out_is_refused() {
    let file = || Layer::new().file("file", "");
    let cases = [
        (file().file("/absolute", ""), "`/absolute`: the path is absolute"),
        (file().file("a/../../up", ""), "`a/../../up`: the path has `..` in it"),
        (file().hard_link("shadow", "/etc/shadow"), "`shadow`: its target `/etc/shadow`: the path is absolute"),
        (file().hard_link("shadow", "../shadow"), "`shadow`: its target `../shadow`: the path has `..` in it"),
        (file().hard_link("none", "nowhere"), "`none`: its target `nowhere`: "),
        (file().link("out", "../../../.."), "`out/evil`: a link on the way leads out of the image"),
        (file().link("loop", "loop"), "`loop/evil`: "),
    ];
    let cases = cases.map(|(layer, words)| match words.split_once("/evil") {
        Some((name, _)) => (layer.file(&format!("{}/evil", &name[1..]), ""), words),
        None => (layer, words),
    });
    for (layer, words) in cases {
        let package = Package::new();
        let layer = layer.bytes();
        package.add("tree.tar", &layer);
        package.fails("of_a_tree", &["its root is the image `tree.tar`: it can't be unpacked: ", words]);
        package.add_all("layout", &layout(&[layer], "{}", "latest"));
        package.fails("of_a_layout", &["its root is the image `oci:layout`: it can't be unpacked: ", words]);
        // Nothing was written outside, and nothing is taken for an image.
        for place in package.unpacked() {
            assert!(!place.join("config").exists() && !place.join("tree").exists(), "{}", place.display());
        }
        assert!(!package.path("up").exists() && !package.path("target/evil").exists());
    }
}

/// A link that is absolute, or leads far up, is no danger: it leads nowhere but to the root of the image.
#[body]
#[isolated(root = "tree.tar")]
fn of_links() {
    assert_eq!(fs::read_link("/far").expect("link"), Path::new("../../../../etc/passwd"));
    assert_eq!(read("/data/in"), "");
}

#[test]
fn links_lead_to_the_image() {
    let package = Package::new();
    let tree = Layer::new().link("far", "../../../../etc/passwd").directory("data/").link("in", "/data");
    package.add("tree.tar", &tree.file("in/in", "").bytes());
    package.passes("of_links");
}

#[body]
#[isolated(root = "oci:layout:one")]
fn of_a_tag() {
    assert_eq!(names("/tag"), ["one"]);
}

#[test]
fn tags_and_architectures_choose() {
    let image = |name: &str| vec![Layer::new().directory("tag/").file(&format!("tag/{name}"), "").bytes()];
    let (one, two) = (image("one"), image("two"));
    let own = if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" };
    let package = Package::new();
    package.add_all("layout", &layout_of(&[("two", own, &two, "{}"), ("one", own, &one, "{}")]));
    package.passes("of_a_tag");
    // Without a tag, it is not clear which one is meant.
    package.fails("of_a_layout", &["it lists 2 images", "`oci:DIR:TAG`", "the tags are `one`, `two`"]);
    let package = Package::new();
    package.add_all("layout", &layout_of(&[("one", "pdp11", &two, "{}"), ("one", own, &one, "{}")]));
    package.passes("of_a_tag");
    let package = Package::new();
    package.add_all("layout", &layout_of(&[("two", own, &two, "{}")]));
    package.fails("of_a_tag", &["no image for ", "has the tag `one`: the tags are `two`"]);
}

#[test]
fn what_is_no_image_is_named() {
    let package = Package::new();
    package
        .fails("of_a_tree", &["its root is the image `tree.tar`: it can't be unpacked: ", "/tree.tar`: No such file"]);
    package.fails("of_a_layout", &["/layout`: No such file"]);
    package.add("layout/file", b"");
    package.fails("of_a_layout", &["this is no image layout of OCI: it has no file `oci-layout`"]);
    package.add("tree.tar", b"no archive, and longer than a block of one: ".repeat(100).as_slice());
    package.fails("of_a_tree", &["tree.tar`: "]);
    let whole = gzip(&saved(&layers(), "{}"));
    package.add("tree.tar", &whole[..whole.len() / 2]);
    package.fails("of_a_tree", &["tree.tar`: "]);
    fs::remove_file(package.path("tree.tar")).expect("remove");
    package.add("tree.tar/file", b"");
    package.fails("of_a_tree", &["this is no file"]);
    // A blob that got lost.
    let package = Package::new();
    package.add_all("layout", &layout(&layers(), "{}", "latest"));
    fs::remove_file(package.path(&format!("layout/blobs/sha256/{:064x}", 2))).expect("remove");
    package.fails("of_a_layout", &["blobs/sha256/", "No such file"]);
}

// ---- What an image says of its processes ----

const PROCESS: &str = r#"{"User": "web", "Env": ["PATH=/image", "OTHER=a=b", "EMPTY="], "WorkingDir": "srv/work"}"#;

fn with_process() -> Vec<u8> {
    let passwd = "root:x:0:0::/root:/bin/sh\nweb:x:33:34::/srv/web:/bin/sh\n";
    let tree = Layer::new()
        .link("etc/passwd", "../../usr/lib/passwd")
        .file("usr/lib/passwd", passwd)
        .directory("srv/")
        .directory("srv/web/");
    let tree = tree.entry(EntryType::Directory, "srv/work/", 0o755, (33, 34), b"", "");
    saved(&[tree.bytes()], PROCESS)
}

#[body]
#[isolated(root = "./image.tar")]
fn as_the_image_says() {
    let variable = |name: &str| env::var(name).expect(name);
    assert_eq!(
        [variable("PATH"), variable("OTHER"), variable("EMPTY"), variable("HOME")],
        ["/image", "a=b", "", "/srv/web"]
    );
    assert_eq!(env::current_dir().expect("cwd"), Path::new("/srv/work"));
    assert_eq!((nix::unistd::getuid().as_raw(), nix::unistd::getgid().as_raw()), (33, 34));
    // It has what the test binary has, too.
    assert!(env::var_os("CARGO_MANIFEST_DIR").is_some());
}

#[body]
#[isolated(root = "./image.tar", user = 0, env = ["PATH=/test"])]
fn as_the_test_says() {
    assert_eq!(
        (env::var("PATH").expect("PATH").as_str(), env::var("OTHER").expect("OTHER").as_str()),
        ("/test", "a=b")
    );
    assert!(nix::unistd::getuid().is_root());
}

#[test]
fn what_an_image_says_of_its_processes_holds() {
    let package = Package::new();
    package.add("image.tar", &with_process());
    package.passes("as_the_image_says");
    package.passes("as_the_test_says");
    package.add("image.tar", &saved(&[Layer::new().file("file", "").bytes()], r#"{"User": "nobody"}"#));
    package.fails("as_the_image_says", &["`nobody`: the image names this user, and its /etc/passwd has no `nobody`"]);
}

// ---- Owners ----

fn with_owners() -> Vec<u8> {
    let tree = Layer::new()
        .entry(EntryType::Regular, "web", 0o640, (33, 34), b"web", "")
        .hard_link("web-too", "web")
        .entry(EntryType::Regular, "setgid", 0o2755, (0, 34), b"", "")
        .entry(EntryType::Directory, "home/", 0o700, (33, 33), b"", "")
        .entry(EntryType::Regular, "far", 0o644, (70_000, 0), b"", "");
    tree.bytes()
}

fn owner(path: &str) -> (u32, u32, u32) {
    let metadata = fs::symlink_metadata(path).expect(path);
    (metadata.uid(), metadata.gid(), metadata.mode() & 0o7777)
}

#[body]
#[isolated(root = "tree.tar")]
fn owners_are_root() {
    assert_eq!((owner("/web"), owner("/setgid")), ((0, 0, 0o640), (0, 0, 0o2755)));
    assert_eq!((owner("/home"), owner("/far")), ((0, 0, 0o700), (0, 0, 0o644)));
}

#[body]
#[isolated(root = "tree.tar", uids = 65536)]
fn owners_are_kept() {
    assert_eq!(
        (owner("/web"), owner("/web-too"), owner("/setgid")),
        ((33, 34, 0o640), (33, 34, 0o640), (0, 34, 0o2755))
    );
    assert_eq!((owner("/home"), owner("/far")), ((33, 33, 0o700), (0, 0, 0o644)));
    assert_eq!(read("/web"), "web");
    // What was given back is no change of the test's.
    fs::write("/new", "").expect("write");
    assert_eq!(belljar::changes().expect("changes").last(), Some(&Change::Created("/new".into())));
}

#[test]
fn owners_become_root_and_that_is_said() {
    let package = Package::new();
    package.add("tree.tar", &with_owners());
    let output = package.passes("owners_are_root");
    let note = "of the image `tree.tar`, 5 files are root's here, and somebody else's in the image (`uids = 70001` keeps the owners)";
    assert!(output.contains(note), "{output}");
}

#[body]
#[isolated(root = "tree.tar", user = "host")]
fn owners_are_the_hosts() {
    assert_eq!((owner("/web"), owner("/far")), ((33, 34, 0o640), (70_000, 0, 0o644)));
}

#[test]
#[ignore = "needs root"]
fn owners_are_kept_with_more_ids() {
    let package = Package::new();
    package.add("tree.tar", &with_owners());
    package.passes("owners_are_kept");
    package.passes("owners_are_the_hosts");
    package.passes("owners_are_root");
}

/// In a sandbox that stands for a machine on which an ordinary user has subordinate ids.
#[isolated(uids = 200_000)]
#[ignore = "needs root and newuidmap(1): .ci/run runs it"]
fn owners_are_kept_for_ordinary_users() {
    for table in ["/etc/subuid", "/etc/subgid"] {
        fs::write(table, "ann:100000:65536\n").expect("write");
    }
    fs::write("/etc/passwd", "root:x:0:0::/root:/bin/sh\nann:x:1000:1000::/:/bin/sh\n").expect("write");
    let package = Package::new();
    package.add("tree.tar", &with_owners());
    for path in ["", "target"] {
        chown(package.path(path), Some(1000), Some(1000)).expect("chown");
    }
    for (body, has_note) in [("owners_are_kept", false), ("owners_are_root", true)] {
        let bodies = package.bodies(&["--exact", body]);
        let mut command = as_runner(Some("setpriv --reuid=1000 --regid=1000 --clear-groups"), &bodies);
        let run = run(&mut command);
        assert!(run.passed() && run.output.contains("are root's here") == has_note, "{}", run.output);
    }
    // Both have the same files, which that user can remove.
    assert_eq!(package.unpacked().len(), 1);
    let is_own = |path: &Path| fs::symlink_metadata(path).expect("stat").uid() == 1000;
    assert!(is_own(&package.unpacked()[0].join("tree/home")) && is_own(&package.unpacked()[0].join("tree/web")));
}

// ---- Once for each version ----

/// Many, so that several are about to unpack at once.
macro_rules! crowd {
    ($($name:ident)*) => {
        mod crowd {
            $(#[belljar_tests::body]
            #[belljar::isolated(root = "tree.tar")]
            fn $name() {
                assert_eq!(super::names("/many").len(), 500);
                std::fs::remove_dir_all("/many").expect("remove");
            })*
        }
    };
}

crowd!(a b c d e f g h i j k l m n o p);

fn many() -> Vec<u8> {
    let tree = (0..500).fold(Layer::new().directory("many/"), |tree, number| tree.file(&format!("many/{number}"), ""));
    gzip(&tree.bytes())
}

fn crowd_passes(package: &Package) {
    let run = run(&mut package.bodies(&["crowd::", "--test-threads=16"]));
    assert!(run.left.is_empty() && run.status.success(), "{}", run.output);
}

#[test]
fn an_image_is_unpacked_once_for_each_version() {
    if refusal_of_copies().is_some() {
        return;
    }
    let package = Package::new();
    package.add("tree.tar", &many());
    crowd_passes(&package);
    let [place] = &package.unpacked()[..] else { panic!("{:?}", package.unpacked()) };
    let tree = place.join("tree");
    let made = || fs::metadata(&tree).map(|metadata| (metadata.ino(), metadata.ctime_nsec())).ok();
    let first = made();
    assert!(first.is_some());
    crowd_passes(&package);
    assert_eq!(made(), first);
    // Another version takes the place of the old one, which nobody uses any more.
    fs::remove_file(package.path("tree.tar")).expect("remove");
    package.add("tree.tar", &many());
    crowd_passes(&package);
    assert!(!place.exists() && package.unpacked().len() == 1, "{:?}", package.unpacked());
}

/// Others unpack at the same time, and are killed while they do so: none begins with a part of an image.
#[test]
fn who_is_killed_leaves_nothing_that_counts() {
    if refusal_of_copies().is_some() {
        return;
    }
    let package = Package::new();
    for round in 0..rounds(10) {
        // Another version each time.
        let _ = fs::remove_file(package.path("tree.tar"));
        package.add("tree.tar", &many());
        let mut killed = package
            .bodies(&["crowd::", "--test-threads=16"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("spawn");
        let other = (round % 2 == 1).then(|| {
            let mut command = package.bodies(&["crowd::", "--test-threads=16"]);
            thread::spawn(move || run(&mut command))
        });
        // Wherever it is by then.
        thread::sleep(Duration::from_millis(fastrand::u64(0..120)));
        killed.kill().and_then(|()| killed.wait()).expect("kill");
        if let Some(other) = other {
            let run = other.join().expect("join");
            assert!(run.status.success(), "{}", run.output);
        }
        crowd_passes(&package);
        assert_eq!(package.unpacked().len(), 1, "{:?}", package.unpacked());
    }
}

// ---- Preparations ----

#[prepared(root = "tree.tar")]
fn filled() {
    fs::write("/many/one-more", "").expect("write");
    fs::remove_file("/many/0").expect("remove");
}

#[body]
#[isolated(from = filled)]
fn starts_from_it() {
    assert_eq!(names("/many").len(), 500);
    assert!(Path::new("/many/one-more").exists() && !Path::new("/many/0").exists());
    fs::remove_file("/many/1").expect("remove");
    assert_eq!(belljar::changes().expect("changes"), [Change::Removed("/many/1".into())]);
}

#[test]
fn preparations_can_have_images() {
    let package = Package::new();
    package.add("tree.tar", &many());
    package.passes("starts_from_it");
}

// ---- Images of other programs ----

#[body]
#[isolated(root = "oci:layout", user = "host")]
fn a_layout_as_root() {
    assert!(Path::new("/bin/sh").exists());
}

#[body]
#[isolated(root = "./image.tar", user = "host")]
fn an_archive_as_root() {
    assert!(Path::new("/bin/sh").exists());
}

#[body]
#[isolated(root = "./image.tar", uids = 65536)]
fn says_who_it_is() {
    let output = Command::new("/bin/sh").args(["-c", "id -un; pwd; echo $KIND; cat data"]).output().expect("sh");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "app\n/home/app\nchanged\ndata\n");
}

/// All that is in a tree, a line each: the path, type and mode, owners, size, time, content, and which names are one file.
fn listed(tree: &Path) -> Vec<String> {
    let script = r#"
        find . -printf '%P\t%y %m %U:%G %T@ %l\n' | sort
        find . -type f -printf '%P\0' | sort -z | xargs -0 sha256sum
        find . -type f -links +1 -printf '%i %P\n' | sort -k 2 | awk '!n[$1] { n[$1] = ++c } { $1 = n[$1]; print }'
        getfattr --recursive --no-dereference --match '^user[.]kind' --dump .
    "#;
    let output = Command::new("sh").args(["-c", script]).current_dir(tree).output().expect("sh");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // umoci keeps parts of seconds, which archives of that kind have not.
    let whole = |line: &str| line.replace(".0000000000", "");
    String::from_utf8_lossy(&output.stdout).lines().map(whole).collect()
}

/// What umoci has unpacked, and what belljar unpacks: of its layout, and of two archives that skopeo has made of that.
#[test]
#[ignore = "needs root and what lab/images makes: .ci/run runs it"]
fn others_unpack_the_same() {
    let made = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/images");
    for image in ["debian", "changed", "busybox"] {
        // Device nodes are left out.
        let is_no_device = |line: &String| !line.contains("\tc ") && !line.contains("\tb ");
        let expected: Vec<_> = listed(&made.join(image).join("rootfs")).into_iter().filter(is_no_device).collect();
        assert!(expected.len() > 5);
        // With BELLJAR_TESTS_ROUNDS, all. Without, the largest is left out, and of the next the archives.
        let forms = [("layout", ""), ("image.tar", ".tar"), ("image.tar", "-oci.tar")];
        let count = match image {
            _ if rounds(0) > 0 => 3,
            "debian" => 0,
            "changed" => 1,
            _ => 3,
        };
        for (name, end) in &forms[..count] {
            let package = Package::new();
            let (body, file) = match *name {
                "layout" => ("a_layout_as_root", "layout".to_owned()),
                _ => ("an_archive_as_root", format!("{image}{end}")),
            };
            if *name == "layout" {
                package.take_tag(&made.join(file), image);
            } else {
                symlink(made.join(file), package.path(name)).expect("symlink");
            }
            package.passes(body);
            let found = listed(&package.unpacked()[0].join("tree"));
            let missing: Vec<_> = expected.iter().filter(|line| !found.contains(line)).take(10).collect();
            let added: Vec<_> = found.iter().filter(|line| !expected.contains(line)).take(10).collect();
            assert!(missing.is_empty() && added.is_empty(), "{image}{end}: {missing:#?}\n{added:#?}");
        }
    }
    let package = Package::new();
    symlink(made.join("changed.tar"), package.path("image.tar")).expect("symlink");
    package.passes("says_who_it_is");
}
