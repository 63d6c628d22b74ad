//! Which files the layers of an artifact are, by the media types and annotations that the tools write.
//!
//! | artifact | layers |
//! |---|---|
//! | ModelPack | `application/vnd.cncf.model.*.v1.raw`: a file each; `.tar`, `.tar+gzip`, `.tar+zstd` |
//! | KitOps | `application/vnd.kitops.modelkit.*.v1.tar`, also packed as above |
//! | Docker Model Runner | `application/vnd.docker.ai.*`: a file each, or `.tar` |
//! | oras | any type, with a title: a file each |
//! | an image | layers of a root filesystem, of which `/models` counts |

use std::collections::BTreeMap;

use super::manifest::{Artifact, Layer};
use super::problem::OciProblem;
use crate::model::{Digest, RefusedFile, RefusedFiles, RelPath, RemoteFile, UnsafePath, text};
use crate::net::SourceError;

const FILEPATH: [&str; 2] = ["org.cncf.model.filepath", "org.cnai.model.filepath"];
const TITLE: &str = "org.opencontainers.image.title";
/// oras packs a directory so.
const UNPACK: &str = "io.deis.oras.content.unpack";
/// Media types that a message names.
const MAX_NAMED: usize = 5;

/// What the layers are.
#[derive(Debug, Default)]
pub struct Layers {
    pub files: Vec<RemoteFile>,
    pub refused: Vec<RefusedFile>,
    /// In the order of the manifest.
    pub packed: Vec<Packed>,
}

/// A layer that is an archive of files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packed {
    pub sha256: [u8; 32],
    pub size: u64,
    pub packing: Packing,
    pub root: Root,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    Tar,
    Gzip,
    Zstd,
}

/// What of an archive is the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Root {
    All,
    /// `/models` of a root filesystem, whose layers lie one over the other.
    Models,
}

/// What one layer is.
#[derive(Debug, PartialEq, Eq)]
enum Form {
    File(String),
    Packed(Packing, Root),
    /// A file whose tool gives it no name; where there are several, they are numbered.
    Unnamed {
        stem: &'static str,
        extension: &'static str,
    },
    Nameless,
    Unknown,
}

impl Layers {
    pub fn of(artifact: &Artifact, name: &str) -> Result<Self, SourceError> {
        let forms: Vec<Form> = artifact.layers.iter().map(form).collect();
        if forms.iter().all(|form| *form == Form::Unknown) {
            let found = named(artifact);
            let name = name.to_owned();
            return Err(SourceError::NotFound(OciProblem::NoModel { name, found }.into()));
        }
        let mut count: BTreeMap<&str, usize> = BTreeMap::new();
        let unnamed = forms.iter().filter_map(|form| match form {
            Form::Unnamed { stem, .. } => Some(*stem),
            _ => None,
        });
        unnamed.for_each(|stem| *count.entry(stem).or_default() += 1);
        let mut numbers: BTreeMap<&str, usize> = BTreeMap::new();
        let (mut layers, mut refused) = (Self::default(), RefusedFiles::default());
        for (layer, form) in artifact.layers.iter().zip(forms) {
            let (sha256, size) = (layer.sha256, layer.size);
            let path = match form {
                Form::File(path) => path,
                Form::Packed(packing, root) => {
                    layers.packed.push(Packed { sha256, size, packing, root });
                    continue;
                }
                Form::Unnamed { stem, extension } => {
                    let number = numbers.entry(stem).or_default();
                    *number += 1;
                    numbered(stem, extension, *number, count[stem])
                }
                Form::Nameless => {
                    let media_type = text::inert(&layer.media_type, 80);
                    let name = name.to_owned();
                    let problem = OciProblem::Nameless { name, media_type };
                    return Err(SourceError::NotFound(problem.into()));
                }
                // Signatures, software bills of materials and the like beside a model.
                Form::Unknown => continue,
            };
            match RelPath::parse(path.strip_prefix("./").unwrap_or(&path)) {
                Ok(path) => {
                    let digest = Some(Digest::Sha256(sha256));
                    let (validator, xet_hash) = (None, None);
                    layers.files.push(RemoteFile { path, size, digest, validator, xet_hash });
                }
                Err(why) => refused
                    .push(RefusedFile { name: path, size, why })
                    .map_err(|why: UnsafePath| SourceError::UnsafePath(why))?,
            }
        }
        layers.refused = refused.into_files();
        Ok(layers)
    }
}

fn form(layer: &Layer) -> Form {
    let media_type = layer.media_type.as_str();
    let path = FILEPATH.into_iter().find_map(|name| layer.annotation(name));
    let path = path.or(layer.annotation(TITLE)).map(str::to_owned);
    let kept = path.clone().map_or(Form::Nameless, Form::File);
    let is_model_pack = ["application/vnd.cncf.model.", "application/vnd.cnai.model."]
        .iter()
        .any(|prefix| media_type.starts_with(prefix));
    if is_model_pack || media_type.starts_with("application/vnd.kitops.modelkit.") {
        return packing(media_type).map_or(kept, |packing| Form::Packed(packing, Root::All));
    }
    if let Some(kind) = media_type.strip_prefix("application/vnd.docker.ai.") {
        return match (packing(media_type), path) {
            (Some(packing), _) => Form::Packed(packing, Root::All),
            (None, Some(path)) => Form::File(path),
            (None, None) => of_docker(kind),
        };
    }
    let is_directory = layer.annotation(UNPACK) == Some("true");
    match (packing(media_type), path) {
        (packing, Some(_)) if is_directory => {
            Form::Packed(packing.unwrap_or(Packing::Gzip), Root::All)
        }
        // oras calls a file so whose type nobody has told.
        (_, Some(path)) => Form::File(path),
        (Some(packing), None) if is_of_an_image(media_type) => Form::Packed(packing, Root::Models),
        (_, None) => Form::Unknown,
    }
}

/// The names that Docker Model Runner gives to files that have none.
fn of_docker(kind: &str) -> Form {
    let (stem, extension) = match kind {
        kind if kind.starts_with("gguf.") && kind.ends_with(".lora") => ("adapter", ".gguf"),
        kind if kind.starts_with("gguf") => ("model", ".gguf"),
        kind if kind.starts_with("safetensors") => ("model", ".safetensors"),
        kind if kind.starts_with("dduf") => ("model", ".dduf"),
        "model.file.v1+gguf" => ("model", ".gguf"),
        "mmproj" => ("mmproj", ".gguf"),
        "license" => ("LICENSE", ""),
        "chat.template.jinja" => ("chat_template", ".jinja"),
        _ => return Form::Nameless,
    };
    Form::Unnamed { stem, extension }
}

fn numbered(stem: &str, extension: &str, number: usize, count: usize) -> String {
    match (count, extension) {
        (1, _) => format!("{stem}{extension}"),
        (_, "") => format!("{stem}-{number}"),
        _ => format!("{stem}-{number:05}-of-{count:05}{extension}"),
    }
}

fn packing(media_type: &str) -> Option<Packing> {
    let is_tar = |text: &str| text.ends_with(".tar") || text.ends_with(".diff.tar");
    match media_type.rsplit_once(['+', '.']) {
        Some((rest, "gzip" | "gz")) if is_tar(rest) => Some(Packing::Gzip),
        Some((rest, "zstd" | "zst")) if is_tar(rest) => Some(Packing::Zstd),
        Some((_, "tar")) => Some(Packing::Tar),
        _ => None,
    }
}

fn is_of_an_image(media_type: &str) -> bool {
    ["application/vnd.oci.image.layer.", "application/vnd.docker.image.rootfs."]
        .iter()
        .any(|prefix| media_type.starts_with(prefix))
}

/// The types of an artifact and of its layers, for a message.
fn named(artifact: &Artifact) -> String {
    let kind = text::inert(&artifact.kind, 100);
    let mut types: Vec<&str> = artifact.layers.iter().map(|it| it.media_type.as_str()).collect();
    types.sort_unstable();
    types.dedup();
    let shown = types.iter().take(MAX_NAMED).map(|it| format!("`{}`", text::inert(it, 100)));
    match shown.collect::<Vec<_>>().join(", ") {
        none if none.is_empty() => format!("its type is `{kind}`, and it has no layers"),
        types => format!("its type is `{kind}`, its layers are of {types}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(n: u8, media_type: &str, annotations: &[(&str, &str)]) -> Layer {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Layer {
            media_type: media_type.to_owned(),
            sha256: [n; 32],
            size: u64::from(n),
            annotations: annotations.iter().map(owned).collect(),
        }
    }

    fn of(layers: Vec<Layer>) -> Result<Layers, SourceError> {
        Layers::of(&Artifact { kind: "application/vnd.some.type".into(), layers }, "org/name")
    }

    #[test]
    fn a_layer_is_a_file_or_an_archive_by_its_type() {
        let path = (FILEPATH[0], "sub/a.bin");
        let title = (TITLE, "b.bin");
        let file = |path: &str| Form::File(path.to_owned());
        for (media_type, annotations, expected) in [
            ("application/vnd.cncf.model.weight.v1.raw", &[path][..], file("sub/a.bin")),
            ("application/vnd.cncf.model.weight.config.v1.raw", &[path, title], file("sub/a.bin")),
            ("application/vnd.cncf.model.weight.v1.gguf", &[path], file("sub/a.bin")),
            ("application/vnd.cnai.model.doc.v1.raw", &[(FILEPATH[1], "x")], file("x")),
            ("application/vnd.cncf.model.doc.v1.raw", &[], Form::Nameless),
            (
                "application/vnd.cncf.model.weight.v1.tar",
                &[path],
                Form::Packed(Packing::Tar, Root::All),
            ),
            (
                "application/vnd.cncf.model.code.v1.tar+gzip",
                &[],
                Form::Packed(Packing::Gzip, Root::All),
            ),
            (
                "application/vnd.cncf.model.code.v1.tar+zstd",
                &[],
                Form::Packed(Packing::Zstd, Root::All),
            ),
            (
                "application/vnd.kitops.modelkit.model.v1.tar",
                &[],
                Form::Packed(Packing::Tar, Root::All),
            ),
            (
                "application/vnd.kitops.modelkit.modelpart.v1.tar+gzip",
                &[],
                Form::Packed(Packing::Gzip, Root::All),
            ),
            (
                "application/vnd.docker.ai.gguf.v3",
                &[],
                Form::Unnamed { stem: "model", extension: ".gguf" },
            ),
            ("application/vnd.docker.ai.gguf.v3", &[path], file("sub/a.bin")),
            (
                "application/vnd.docker.ai.mmproj",
                &[],
                Form::Unnamed { stem: "mmproj", extension: ".gguf" },
            ),
            (
                "application/vnd.docker.ai.vllm.config.tar",
                &[path],
                Form::Packed(Packing::Tar, Root::All),
            ),
            ("application/vnd.docker.ai.something", &[], Form::Nameless),
            ("application/vnd.oci.image.layer.v1.tar", &[title], file("b.bin")),
            ("text/plain", &[title], file("b.bin")),
            ("text/plain", &[], Form::Unknown),
            (
                "application/vnd.oci.image.layer.v1.tar+gzip",
                &[title, (UNPACK, "true")],
                Form::Packed(Packing::Gzip, Root::All),
            ),
            (
                "application/vnd.oci.image.layer.v1.tar+gzip",
                &[],
                Form::Packed(Packing::Gzip, Root::Models),
            ),
            (
                "application/vnd.oci.image.layer.v1.tar",
                &[],
                Form::Packed(Packing::Tar, Root::Models),
            ),
            (
                "application/vnd.docker.image.rootfs.diff.tar.gzip",
                &[],
                Form::Packed(Packing::Gzip, Root::Models),
            ),
            ("application/vnd.cyclonedx+json", &[], Form::Unknown),
        ] {
            assert_eq!(form(&layer(1, media_type, annotations)), expected, "{media_type}");
        }
    }

    #[test]
    fn files_without_a_name_are_numbered_where_there_are_several() {
        let gguf = |n| layer(n, "application/vnd.docker.ai.gguf.v3", &[]);
        let license = |n| layer(n, "application/vnd.docker.ai.license", &[]);
        let paths = |layers| {
            let files = of(layers).expect("a model").files.into_iter();
            files.map(|file| file.path.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(paths(vec![gguf(1), license(2)]), ["model.gguf", "LICENSE"]);
        assert_eq!(
            paths(vec![gguf(1), gguf(2), license(3), license(4)]),
            ["model-00001-of-00002.gguf", "model-00002-of-00002.gguf", "LICENSE-1", "LICENSE-2"]
        );
    }

    #[test]
    fn a_path_that_leaves_is_left_to_the_selection_and_nothing_at_all_is_named() {
        let raw =
            |n, path| layer(n, "application/vnd.cncf.model.weight.v1.raw", &[(FILEPATH[0], path)]);
        let read =
            of(vec![raw(1, "../x"), raw(2, "./a"), layer(3, "text/x", &[])]).expect("a model");
        assert_eq!(read.files[0].path.as_str(), "a");
        assert_eq!(read.refused[0].name, "../x");
        let error = of(vec![layer(3, "text/x\u{1b}", &[])]).expect_err("no model").to_string();
        assert!(
            error.contains("application/vnd.some.type") && error.contains("`text/x"),
            "{error}"
        );
        assert!(of(vec![]).expect_err("no layers").to_string().contains("no layers"));
    }
}
