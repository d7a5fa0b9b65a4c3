//! Images, as other programs write them.

use std::io::Write as _;

use tar::{EntryType, Header};

/// A layer, or a tree.
pub(crate) struct Layer(tar::Builder<Vec<u8>>);

/// When all files were changed: in 2001.
pub(crate) const TIME: u64 = 1_000_000_000;

impl Layer {
    pub(crate) fn new() -> Self {
        Self(tar::Builder::new(Vec::new()))
    }

    /// One entry. Its name is taken as it is.
    pub(crate) fn entry(
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

    pub(crate) fn file(self, name: &str, content: &str) -> Self {
        self.entry(EntryType::Regular, name, 0o644, (0, 0), content.as_bytes(), "")
    }

    pub(crate) fn directory(self, name: &str) -> Self {
        self.entry(EntryType::Directory, name, 0o755, (0, 0), b"", "")
    }

    pub(crate) fn link(self, name: &str, target: &str) -> Self {
        self.entry(EntryType::Symlink, name, 0o777, (0, 0), b"", target)
    }

    pub(crate) fn hard_link(self, name: &str, target: &str) -> Self {
        self.entry(EntryType::Link, name, 0o644, (0, 0), b"", target)
    }

    /// Has the next entry have this in its extended header.
    pub(crate) fn extended(mut self, key: &str, value: &str) -> Self {
        self.0.append_pax_extensions([(key, value.as_bytes())]).expect("append");
        self
    }

    pub(crate) fn bytes(self) -> Vec<u8> {
        self.0.into_inner().expect("finish")
    }
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).and_then(|()| encoder.finish()).expect("gzip")
}

/// In two frames, as some tools write it.
pub(crate) fn zstd(bytes: &[u8]) -> Vec<u8> {
    let (first, second) = bytes.split_at(bytes.len() / 2);
    [first, second].map(|part| zstd::encode_all(part, 1).expect("zstd")).concat()
}

pub(crate) fn plain(bytes: &[u8]) -> Vec<u8> {
    bytes.to_vec()
}

/// Files, by their names.
pub(crate) type Files = Vec<(String, Vec<u8>)>;

/// An image in the layout of OCI, with this tag.
pub(crate) fn layout(layers: &[Vec<u8>], process: &str, tag: &str) -> Files {
    layout_of(&[(tag, "amd64", layers, process)])
}

/// Several images in one layout, each with a tag, an architecture, layers, and what it says of its processes.
pub(crate) fn layout_of(images: &[(&str, &str, &[Vec<u8>], &str)]) -> Files {
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
        let describe = |layer: &Vec<u8>| {
            let digest = blob(&mut files, layer.clone());
            format!(r#"{{"mediaType": "layer", "digest": "{digest}", "size": {}}}"#, layer.len())
        };
        let layers: Vec<_> = layers.iter().map(describe).collect();
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
pub(crate) fn saved(layers: &[Vec<u8>], process: &str) -> Vec<u8> {
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
pub(crate) fn archived(files: &Files) -> Vec<u8> {
    let add = |archive: Layer, (name, content): &(String, Vec<u8>)| {
        archive.entry(EntryType::Regular, name, 0o644, (0, 0), content, "")
    };
    files.iter().fold(Layer::new(), add).bytes()
}
