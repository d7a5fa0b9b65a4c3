//! Images as roots, with the feature `images`. The images are made here, entry by entry; `others` looks at those of other programs.

mod layers;
mod made;
mod others;
mod owners;
mod package;

use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use std::{env, fs, thread};

use belljar::{Change, isolated, prepared};
use belljar_tests::{body, hang, refusal_of_copies, rounds, run};
use tar::EntryType;

use layers::{layers, names, read};
use made::{Layer, gzip, layout, layout_of, saved};
use package::Package;

belljar_tests::bodies!();

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
        package.fails("layers::of_a_tree", &["its root is the image `tree.tar`: it can't be unpacked: ", words]);
        package.add_all("layout", &layout(&[layer], "{}", "latest"));
        package.fails("layers::of_a_layout", &["its root is the image `oci:layout`: it can't be unpacked: ", words]);
        // Nothing was written outside, and nothing is taken for an image.
        for place in package.unpacked() {
            let made = ["config", "tree", "up"].map(|name| place.join(name).exists());
            assert_eq!(made, [false; 3], "{}", place.display());
        }
        assert!(!package.path("evil").exists() && !Path::new("/absolute").exists());
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
    package.fails("layers::of_a_layout", &["it lists 2 images", "`oci:DIR:TAG`", "the tags are `one`, `two`"]);
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
    package.fails(
        "layers::of_a_tree",
        &["its root is the image `tree.tar`: it can't be unpacked: ", "/tree.tar`: No such file"],
    );
    package.fails("layers::of_a_layout", &["/layout`: No such file"]);
    package.add("layout/file", b"");
    package.fails("layers::of_a_layout", &["this is no image layout of OCI: it has no file `oci-layout`"]);
    package.add("tree.tar", b"no archive, and longer than a block of one: ".repeat(100).as_slice());
    package.fails("layers::of_a_tree", &["tree.tar`: "]);
    let whole = gzip(&saved(&layers(), "{}"));
    package.add("tree.tar", &whole[..whole.len() / 2]);
    package.fails("layers::of_a_tree", &["tree.tar`: "]);
    fs::remove_file(package.path("tree.tar")).expect("remove");
    package.add("tree.tar/file", b"");
    package.fails("layers::of_a_tree", &["this is no file"]);
    // Compressed in a way that belljar can't read.
    fs::remove_dir_all(package.path("tree.tar")).expect("remove");
    package.add("tree.tar", b"\xfd7zXZ\0and more");
    package.fails("layers::of_a_tree", &["it is compressed by xz: belljar reads gzip and zstd"]);
    // A blob that got lost.
    let package = Package::new();
    package.add_all("layout", &layout(&layers(), "{}", "latest"));
    fs::remove_file(package.path(&format!("layout/blobs/sha256/{:064x}", 2))).expect("remove");
    package.fails("layers::of_a_layout", &["blobs/sha256/", "No such file"]);
}

/// What ends too early, or has other content than its checksum says, is not taken for a whole image.
#[test]
fn half_an_image_is_none() {
    let tree =
        Layer::new().directory("data/").file("data/file", "").file("data/.wh.file", "").file("manifest.json", "[1]");
    let tree = tree.bytes();
    let fails = |archive: &[u8], words: &str| {
        let package = Package::new();
        package.add("tree.tar", archive);
        package.fails("layers::of_a_tree", &["it can't be unpacked: ", words]);
    };
    let is_cut_off = "/tree.tar`: it is cut off";
    fails(b"", is_cut_off);
    // Between two entries, and where the blocks of zeros begin.
    fails(&tree[..512], is_cut_off);
    fails(&tree[..4 * 512 + 512], is_cut_off);
    let mut wrong = gzip(&tree);
    let checksum = wrong.len() - 8;
    wrong[checksum] ^= 1;
    fails(&wrong, "/tree.tar`: ");
    // A list of images that can't be read, and one whose image is not there yet.
    let whole = saved(&layers(), "{}");
    for manifest in ["[{", r#"[{"Config": "config.json"}]"#, r#"[{"Config": "other.json", "Layers": []}]"#, "[]"] {
        let layer = Layer::new().entry(EntryType::Regular, "0/layer.tar", 0o644, (0, 0), &layers()[0], "");
        fails(&layer.file("config.json", "{}").file("manifest.json", manifest).bytes(), "`manifest.json`: ");
    }
    fails(&whole[..whole.len() / 512 / 2 * 512], "/tree.tar`: ");
    // Layers of a layout.
    let package = Package::new();
    let layer = layers()[0].clone();
    let mut wrong = gzip(&layer);
    let checksum = wrong.len() - 8;
    wrong[checksum] ^= 1;
    package.add_all("layout", &layout(&[wrong], "{}", "latest"));
    package.fails("layers::of_a_layout", &["it can't be unpacked: `blobs/sha256/"]);
    let package = Package::new();
    package.add_all("layout", &layout(std::slice::from_ref(&layer), "{}", "latest"));
    package.add(&format!("layout/blobs/sha256/{:064x}", 1), &layer[..layer.len() - 512]);
    package.fails("layers::of_a_layout", &["by the manifest", "it is not whole"]);
}

#[test]
fn what_can_not_be_read_is_refused() {
    let package = Package::new();
    package.add("tree.tar", &Layer::new().extended("GNU.sparse.major", "1").file("file", "").bytes());
    package
        .fails("layers::of_a_tree", &["`file`: sparse files are read of archives that `tar --format=gnu` has written"]);
    // The reader takes it for the end of a record.
    package.add("tree.tar", &Layer::new().extended("path", "a\nb").directory("a").bytes());
    package.fails("layers::of_a_tree", &["it can't be unpacked: "]);
}

// ---- What an image says of its processes ----

const PROCESS: &str = r#"{"User": "web", "Env": ["PATH=/image", "OTHER=a=b", "EMPTY="], "WorkingDir": "srv/jobs"}"#;

fn with_process() -> Vec<u8> {
    let passwd = "root:x:0:0::/root:/bin/sh\nweb:x:33:34::/srv/web:/bin/sh\n";
    let tree = Layer::new()
        .link("etc/passwd", "../../usr/lib/passwd")
        .file("usr/lib/passwd", passwd)
        .directory("srv/")
        .directory("srv/web/");
    let tree = tree.entry(EntryType::Directory, "srv/jobs/", 0o755, (33, 34), b"", "");
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
    assert_eq!(env::current_dir().expect("cwd"), Path::new("/srv/jobs"));
    assert_eq!((nix::unistd::getuid().as_raw(), nix::unistd::getgid().as_raw()), (33, 34));
    // It has what the test binary has, too.
    assert!(env::var_os("CARGO_MANIFEST_DIR").is_some());
}

#[body]
#[isolated(root = "./image.tar", user = 0, env = ["PATH=/test"])]
fn as_the_test_says() {
    // That is the image's user's.
    assert_ne!(env::var("HOME").expect("HOME"), "/srv/web");
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

/// A fault of the image is none of the host's, for which a test may be skipped.
#[body]
#[isolated(root = "./image.tar", unsupported = "skip")]
fn may_be_skipped() {}

#[test]
fn faults_of_images_skip_no_test() {
    let package = Package::new();
    let faults = [
        (
            Layer::new().file("file", ""),
            r#"{"WorkingDir": "/file"}"#,
            "`/file`: the image has it as the working directory",
        ),
        (Layer::new().file("dev", ""), "{}", "`/dev`: belljar mounts there, and it can't be entered"),
        (Layer::new().link("proc", "proc"), "{}", "`/proc`: belljar mounts there, and it can't be entered"),
        (Layer::new(), r#"{"User": "4294967295"}"#, "`4294967295`: the image names this user"),
        (Layer::new(), r#"{"Env": ["=x"]}"#, "`=x`: the image sets this as an environment variable"),
        (Layer::new().file("root", ""), r#"{"Env": ["HOME=/root/below"]}"#, "what it asks for can't be had"),
        (Layer::new().file("etc", ""), r#"{"WorkingDir": "/etc/x"}"#, "`/etc/x`: the image has it"),
    ];
    for (tree, process, words) in faults {
        package.add("image.tar", &saved(&[tree.bytes()], process));
        package.fails("may_be_skipped", &[words]);
    }
    package.add("image.tar", &saved(&[Layer::new().bytes()], "{}"));
    package.passes("may_be_skipped");
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
    let run = run(&mut package.bodies(&["crowd::*", "--test-threads=16"]));
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

#[body]
#[isolated(root = "tree.tar")]
fn stays() {
    println!("it has begun");
    hang();
}

/// None waits for the end of another that uses the image.
#[test]
fn many_processes_use_an_image_at_once() {
    if refusal_of_copies().is_some() {
        return;
    }
    let package = Package::new();
    package.add("tree.tar", &many());
    let start = |_| {
        let mut command = package.bodies(&["stays", "--nocapture"]);
        command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("spawn")
    };
    let mut processes: Vec<_> = (0..4).map(start).collect();
    for process in &mut processes {
        let lines = BufReader::new(process.stdout.take().expect("a pipe")).lines();
        let has_begun = lines.map_while(Result::ok).any(|line| line.contains("it has begun"));
        process.kill().and_then(|()| process.wait()).expect("kill");
        assert!(has_begun);
    }
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
            .bodies(&["crowd::*", "--test-threads=16"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("spawn");
        let other = (round % 2 == 1).then(|| {
            let mut command = package.bodies(&["crowd::*", "--test-threads=16"]);
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

/// Under nextest, what was left upon one version of the image is not for those who find another.
#[test]
fn preparations_go_with_a_version_of_the_image() {
    let package = Package::new();
    for round in 0..3 {
        let _ = fs::remove_file(package.path("tree.tar"));
        package.add("tree.tar", &many());
        for _ in 0..2 {
            let run = run(package.bodies(&["starts_from_it"]).env("NEXTEST_RUN_ID", "one-run"));
            assert!(run.passed() || refusal_of_copies().is_some(), "{round}: {}", run.output);
        }
    }
}
