//! Which layers an image has, and what it says of the processes that run in it.
#![expect(clippy::question_mark, reason = "code that nanoserde writes")]

use std::collections::HashMap;
use std::env::consts::ARCH;

use nanoserde::DeJson;

use super::archive::Files;
use super::error::ImageError;

/// An image of some files.
pub(super) struct Manifest {
    /// Its layers, the lowest first.
    pub(super) layers: Vec<Layer>,
    pub(super) process: ProcessConfig,
}

/// A layer, as the manifest has it.
pub(super) struct Layer {
    pub(super) name: String,
    /// In bytes, if the manifest says so.
    pub(super) size: Option<u64>,
}

/// What an image says of its processes.
#[derive(Clone, Debug, Default)]
pub(super) struct ProcessConfig {
    /// `USER` or `USER:GROUP`, each a name or a number.
    pub(super) user: Option<String>,
    /// Each as `NAME=value`.
    pub(super) env: Vec<String>,
    pub(super) working_directory: Option<String>,
}

/// See the image specification's config.md.
#[derive(Default, DeJson)]
#[nserde(default)]
struct OfProcess {
    #[nserde(rename = "User")]
    user: Option<String>,
    #[nserde(rename = "Env")]
    env: Option<Vec<String>>,
    #[nserde(rename = "WorkingDir")]
    working_directory: Option<String>,
}

impl From<Config> for ProcessConfig {
    fn from(config: Config) -> Self {
        let OfProcess { user, env, working_directory } = config.config.unwrap_or_default();
        Self { user, env: env.unwrap_or_default(), working_directory }
    }
}

#[derive(Default, DeJson)]
#[nserde(default)]
struct Config {
    config: Option<OfProcess>,
}

/// The same file holds an index, or a manifest.
#[derive(Default, DeJson)]
#[nserde(default)]
struct Document {
    manifests: Option<Vec<Descriptor>>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
}

#[derive(Clone, Default, DeJson)]
#[nserde(default)]
struct Descriptor {
    digest: String,
    /// In bytes.
    size: Option<u64>,
    platform: Option<Platform>,
    annotations: Option<HashMap<String, String>>,
}

#[derive(Clone, Default, DeJson)]
#[nserde(default)]
struct Platform {
    architecture: String,
    os: String,
}

/// What `docker save` writes to `manifest.json`, for each image.
#[derive(Default, DeJson)]
#[nserde(default)]
struct Saved {
    #[nserde(rename = "Config")]
    config: Option<String>,
    #[nserde(rename = "RepoTags")]
    tags: Option<Vec<String>>,
    #[nserde(rename = "Layers")]
    layers: Option<Vec<String>>,
}

/// The file of a layout of OCI that is read first.
const INDEX: &str = "index.json";

/// The file of an archive of `docker save` that is read first.
const SAVED: &str = "manifest.json";

/// The annotation that holds the tag.
const TAG: &str = "org.opencontainers.image.ref.name";

/// The most indexes that are read on the way to a manifest.
const INDEXES_MAX: usize = 4;

fn parse<T: DeJson>(files: &Files, name: &str) -> Result<T, ImageError> {
    T::deserialize_json(&files.text(name)?).map_err(|error| ImageError::new(name, error))
}

/// The file that has this digest.
fn blob(digest: &str) -> Result<String, ImageError> {
    let is_name = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric());
    match digest.split_once(':') {
        Some((algorithm, hash)) if is_name(algorithm) && is_name(hash) => Ok(format!("blobs/{algorithm}/{hash}")),
        _ => Err(ImageError::new(digest, "this is no digest, such as `sha256:0123`")),
    }
}

/// The digest of the manifest that `tag` names in a layout of OCI.
pub(super) fn digest(files: &Files, tag: Option<&str>) -> Result<String, ImageError> {
    let mut index: Document = parse(files, INDEX)?;
    let mut tag = tag;
    for _ in 0..INDEXES_MAX {
        let descriptor = choose(&index.manifests.unwrap_or_default(), tag)?;
        let document: Document = parse(files, &blob(&descriptor.digest)?)?;
        if document.manifests.is_none() {
            return Ok(descriptor.digest);
        }
        (index, tag) = (document, None);
    }
    Err(ImageError::new(INDEX, format!("indexes are nested too deeply: belljar follows {INDEXES_MAX}")))
}

/// Chooses one of these: by the tag, and among several, by the architecture of this machine.
fn choose(all: &[Descriptor], tag: Option<&str>) -> Result<Descriptor, ImageError> {
    let tag_of = |descriptor: &'_ Descriptor| descriptor.annotations.as_ref()?.get(TAG).cloned();
    let is_other = |platform: &Platform| platform.architecture != architecture() || platform.os != "linux";
    let mut found: Vec<_> =
        all.iter().filter(|descriptor| tag.is_none() || tag_of(descriptor).as_deref() == tag).collect();
    if found.len() > 1 {
        found.retain(|descriptor| !descriptor.platform.as_ref().is_some_and(is_other));
    }
    if let [one] = found[..] {
        return Ok(one.clone());
    }
    let mut tags: Vec<_> = all.iter().filter_map(tag_of).map(|tag| format!("`{tag}`")).collect();
    tags.sort();
    tags.dedup();
    let tags = if tags.is_empty() { "none has a tag".to_owned() } else { format!("the tags are {}", tags.join(", ")) };
    let (count, machine) = (all.len(), architecture());
    Err(match tag {
        _ if all.is_empty() => ImageError::new(INDEX, "it lists no image"),
        Some(tag) if found.is_empty() => {
            ImageError::new(INDEX, format!("no image for {machine} has the tag `{tag}`: {tags}"))
        }
        Some(tag) => ImageError::new(INDEX, format!("several images for {machine} have the tag `{tag}`")),
        None if found.is_empty() => ImageError::new(INDEX, format!("none of {count} images is for {machine}")),
        None => {
            ImageError::new(INDEX, format!("it lists {count} images, so write which one, as `oci:DIR:TAG`: {tags}"))
        }
    })
}

/// This machine's architecture, by the name that Go has for it.
fn architecture() -> &'static str {
    match ARCH {
        "x86_64" => "amd64",
        "x86" => "386",
        "aarch64" => "arm64",
        "powerpc64" => "ppc64le",
        "loongarch64" => "loong64",
        other => other,
    }
}

/// The image whose manifest has this digest.
pub(super) fn of_digest(files: &Files, digest: &str) -> Result<Manifest, ImageError> {
    let name = blob(digest)?;
    let document: Document = parse(files, &name)?;
    let (Some(config), Some(layers)) = (document.config, document.layers) else {
        return Err(ImageError::new(name, "this is no manifest: it lacks `config` or `layers`"));
    };
    let layer = |layer: &Descriptor| Ok(Layer { name: blob(&layer.digest)?, size: layer.size });
    let layers = layers.iter().map(layer).collect::<Result<_, _>>()?;
    let config: Config = parse(files, &blob(&config.digest)?)?;
    Ok(Manifest { layers, process: config.into() })
}

/// The image in an archive. `None` if that is the archive of a tree.
pub(super) fn of_archive(files: &Files) -> Result<Option<Manifest>, ImageError> {
    let has_index = files.has(INDEX) && files.has("oci-layout");
    if files.has(SAVED) {
        // A tree may have a file of that name, of another kind. But it has no layers.
        let saved = parse::<Vec<Saved>>(files, SAVED);
        let is_image = |image: &Saved| image.config.as_ref().is_some_and(|config| files.has(config));
        match saved {
            Ok(saved) if !saved.is_empty() && saved.iter().all(is_image) => return of_saved(files, &saved).map(Some),
            Err(trouble) if files.have_layers() && !has_index => return Err(trouble),
            Ok(_) if files.have_layers() && !has_index => {
                return Err(ImageError::new(
                    SAVED,
                    "it names no image whose `Config` is in the archive, which has layers",
                ));
            }
            _ => {}
        }
    }
    if has_index {
        return of_digest(files, &digest(files, None)?).map(Some);
    }
    Ok(None)
}

fn of_saved(files: &Files, saved: &[Saved]) -> Result<Manifest, ImageError> {
    let [Saved { config: Some(config), layers, .. }] = saved else {
        let tags = saved.iter().flat_map(|image| image.tags.iter().flatten()).map(|tag| format!("`{tag}`"));
        let tags = tags.collect::<Vec<_>>().join(", ");
        return Err(ImageError::new(
            SAVED,
            format!("the archive holds {} images: save one of them ({tags})", saved.len()),
        ));
    };
    let layers = layers.as_ref().ok_or_else(|| ImageError::new(SAVED, "its image has no `Layers`"))?;
    let layers = layers.iter().map(|name| Layer { name: name.clone(), size: None }).collect();
    Ok(Manifest { layers, process: parse::<Config>(files, config)?.into() })
}
