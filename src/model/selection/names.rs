//! What the name of a file says about the weights in it.

use std::borrow::Cow;

/// Formats that safetensors can stand for, by their extensions. GGUF and ONNX are none of them: they
/// are written for other programs, and often quantised.
const OTHER_FORMATS: [&str; 7] = ["bin", "pth", "pt", "ckpt", "h5", "msgpack", "ot"];

/// The stem that loaders look for first, and those that stand for the same weights.
const FAMILIES: [(&str, &[&str]); 2] = [
    ("model", &["model", "pytorch_model", "tf_model", "flax_model", "rust_model"]),
    (DIFFUSION, &[DIFFUSION, "diffusion_flax_model"]),
];
const DIFFUSION: &str = "diffusion_pytorch_model";

/// One file of weights, without its directory.
#[derive(Debug, PartialEq, Eq)]
pub struct Weights<'a> {
    /// The name without numbering and extension: `pytorch_model.fp16`.
    pub stem: Cow<'a, str>,
    pub shard: Option<Shard<'a>>,
    pub format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Format {
    Safetensors,
    /// Its extension.
    Other(&'static str),
}

/// `00001-of-00004`, counted from 0 or from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard<'a> {
    pub number: u32,
    pub count: u32,
    /// As it is written: `2` and `00002` number different sets.
    pub count_text: &'a str,
}

/// What is the same for the same weights in another format. Lies in one directory.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Identity<'a> {
    family: Cow<'a, str>,
    variant: Cow<'a, str>,
}

impl<'a> Weights<'a> {
    /// Reads `name`; `None` where it is not in safetensors, nor in a format that this can stand for.
    pub fn parse(name: &'a str) -> Option<Self> {
        let (base, extension) = name.rsplit_once('.')?;
        let format = if extension == "safetensors" {
            Format::Safetensors
        } else {
            let known = OTHER_FORMATS.iter().find(|it| extension.eq_ignore_ascii_case(it));
            Format::Other(known?)
        };
        let (stem, shard) = match numbered(base) {
            Some((stem, shard)) => (without_extension(stem, extension), Some(shard)),
            None => (base.into(), None),
        };
        Some(Self { stem, shard, format })
    }

    pub fn identity(&self) -> Identity<'a> {
        // Only these stems have variants; `sd_xl_base_1.0` is a name with a dot.
        let (first, variant) = self.stem.split_once('.').unwrap_or((&self.stem, ""));
        let family = FAMILIES.iter().find(|(_, stems)| stems.contains(&first));
        match family {
            Some((family, _)) => {
                Identity { family: (*family).into(), variant: variant.to_owned().into() }
            }
            None => Identity { family: self.stem.clone(), variant: "".into() },
        }
    }

    /// Whether loaders find this file without looking for another name first. `pytorch_model.safetensors`
    /// is one that transformers does not look for, so it stands for nothing.
    pub fn is_found_by_loaders(&self) -> bool {
        let first = self.stem.split('.').next().unwrap_or_default();
        FAMILIES.iter().all(|(family, stems)| !stems.contains(&first) || first == *family)
    }

    /// Mistral's own layout of a model: `consolidated.safetensors`, `consolidated.00.pth`.
    pub fn is_consolidated(&self) -> bool {
        self.stem.strip_prefix("consolidated").is_some_and(|rest| {
            let digits = rest.strip_prefix('.').unwrap_or("none");
            rest.is_empty() || digits.bytes().all(|byte| byte.is_ascii_digit())
        })
    }

    /// What the files have in common that are needed together: the stem of a set, or of `shard-3`, whose
    /// number tells no count, `shard-`.
    pub fn series(&self) -> &str {
        let series = self.stem.trim_end_matches(|c: char| c.is_ascii_digit());
        let is_numbered = self.shard.is_none() && series.ends_with(['-', '_', '.']);
        if is_numbered { series } else { &self.stem }
    }
}

impl Identity<'static> {
    /// A whole model, as transformers and diffusers name it, of no variant.
    pub const MODELS: [Self; 2] = [Self::plain("model"), Self::plain(DIFFUSION)];
    /// What rides on a model.
    pub const ADAPTERS: [Self; 2] =
        [Self::plain("adapter_model"), Self::plain("pytorch_lora_weights")];

    const fn plain(family: &'static str) -> Self {
        Self { family: Cow::Borrowed(family), variant: Cow::Borrowed("") }
    }
}

/// `model.fp16-00001-of-00004` or, as older diffusers wrote it, `model-00001-of-00004.fp16`:
/// `model.fp16`, and which shard it is.
fn numbered(base: &str) -> Option<(Cow<'_, str>, Shard<'_>)> {
    let at = base.rfind("-of-").or_else(|| base.rfind("_of_"))?;
    let (before, after) = (&base[..at], &base[at + "-of-".len()..]);
    let is_digit = |c: char| c.is_ascii_digit();
    let stem = before.trim_end_matches(is_digit);
    let number = before[stem.len()..].parse().ok()?;
    let stem = stem.strip_suffix(['-', '_', '.'])?;
    let variant = after.trim_start_matches(is_digit);
    let count_text = &after[..after.len() - variant.len()];
    let count = count_text.parse().ok().filter(|count| *count > 0 && number <= *count)?;
    let stem = match variant {
        "" => stem.into(),
        variant if variant.starts_with('.') => format!("{stem}{variant}").into(),
        _ => return None,
    };
    Some((stem, Shard { number, count, count_text }))
}

/// Some write shards as `model.safetensors-00001-of-00004.safetensors`.
fn without_extension<'a>(stem: Cow<'a, str>, extension: &str) -> Cow<'a, str> {
    let shorter = stem.strip_suffix(extension).and_then(|stem| stem.strip_suffix('.'));
    let Some(length) = shorter.map(str::len) else { return stem };
    match stem {
        Cow::Borrowed(stem) => stem[..length].into(),
        Cow::Owned(stem) => stem[..length].to_owned().into(),
    }
}

/// The file, or the name of the set, that an index describes: `model.safetensors.index.json` and
/// `model.safetensors.index.fp16.json` → `model.safetensors` and `model.fp16.safetensors`.
pub fn described_by_index(name: &str) -> Option<String> {
    let (file, variant) = name.strip_suffix(".json")?.rsplit_once(".index")?;
    let (base, extension) = file.rsplit_once('.')?;
    (variant.is_empty() || variant.starts_with('.')).then(|| format!("{base}{variant}.{extension}"))
}

/// Whether a file of this name is likely to hold the weights of a model, in whatever format.
pub fn looks_like_weights(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path).to_ascii_lowercase();
    if is_of_a_tokenizer(&name) {
        return false;
    }
    let extension = name.rsplit_once('.').map_or("", |(_, extension)| extension);
    OTHER_FORMATS.contains(&extension)
        || matches!(
            extension,
            "safetensors" | "gguf" | "ggml" | "tflite" | "pb" | "npz" | "keras" | "mlmodel"
        )
        || matches!(extension, "pdparams")
        || is_onnx(&name)
}

/// Whether `path`, below a directory that repeats a model, is a part of the weights there. What is
/// not certain to be one is not: a tokenizer or a configuration may exist nowhere else.
pub fn is_weights_of_copy(path: &str, has_beside: impl Fn(&str) -> bool) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    let lower = name.to_ascii_lowercase();
    let described = described_by_index(&lower);
    let lower = described.as_deref().unwrap_or(&lower);
    if is_of_a_tokenizer(lower) || lower.ends_with(".gguf") {
        return false;
    }
    let is_inside = |ending| path.rsplit('/').skip(1).any(|part: &str| part.ends_with(ending));
    let of_tensorflow = lower.contains(".data-0") || lower.ends_with(".ckpt.meta");
    let stem = name.rsplit_once('.').map_or(name, |(stem, _)| stem);
    looks_like_weights(lower)
        || [".mlpackage", ".mlmodelc"].into_iter().any(is_inside)
        || of_tensorflow
        || [".ckpt.index", "variables.index"].into_iter().any(|end| lower.ends_with(end))
        // OpenVINO: the network, without which its weights are nothing.
        || (lower.ends_with(".xml") && has_beside(&format!("{stem}.bin")))
        // What torch.onnx writes beside a network of more than 2 GB.
        || lower.starts_with("onnx__")
        || (lower.ends_with(".data") && has_beside(&format!("{stem}.onnx")))
}

/// `model.onnx`, and its data: `model.onnx_data`, `model.onnx_data_1`, `model.onnx.data`.
fn is_onnx(name: &str) -> bool {
    [".onnx", ".onnx.data"].iter().any(|end| name.ends_with(end)) || name.contains(".onnx_data")
}

/// OpenVINO, torchaudio and others keep tokenizers in files of weights.
fn is_of_a_tokenizer(name: &str) -> bool {
    ["tokenizer", "vocab"].iter().any(|word| name.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_a_stem_a_number_and_a_format() {
        let read = |name: &str| {
            let weights = Weights::parse(name).expect(name);
            let shard = weights.shard.map(|shard| (shard.number, shard.count));
            (weights.stem.into_owned(), shard)
        };
        for (name, stem, shard) in [
            ("model.safetensors", "model", None),
            ("model-00001-of-00004.safetensors", "model", Some((1, 4))),
            ("model.fp16-00001-of-00004.safetensors", "model.fp16", Some((1, 4))),
            ("model-00001-of-00004.fp16.safetensors", "model.fp16", Some((1, 4))),
            ("model_00000_of_00004.bin", "model", Some((0, 4))),
            ("model.safetensors-1-of-4.safetensors", "model", Some((1, 4))),
            ("model.bin-1-of-4.safetensors", "model.bin", Some((1, 4))),
            ("model--1-of-7.BIN", "model-", Some((1, 7))),
            ("a-of-b.bin", "a-of-b", None),
            ("x-5-of-4.bin", "x-5-of-4", None),
            ("x-0-of-0.bin", "x-0-of-0", None),
            ("x-1-of-99999999999.bin", "x-1-of-99999999999", None),
            ("1-of-2.bin", "1-of-2", None),
            ("x-1-of-2a.bin", "x-1-of-2a", None),
            ("é-1-of-2.é.pt", "é.é", Some((1, 2))),
        ] {
            assert_eq!(read(name), (stem.into(), shard), "{name}");
        }
        for name in ["model.gguf", "model.onnx", "model", "model.safetensors.index.json", ""] {
            assert_eq!(Weights::parse(name), None, "{name}");
        }
    }

    #[test]
    fn the_same_weights_have_one_identity() {
        let identity = |name: &str| {
            let identity = Weights::parse(name).expect(name).identity();
            (identity.family.into_owned(), identity.variant.into_owned())
        };
        for (name, family, variant) in [
            ("tf_model.h5", "model", ""),
            ("flax_model.msgpack", "model", ""),
            ("rust_model.ot", "model", ""),
            ("pytorch_model.8bit.bin", "model", "8bit"),
            ("diffusion_flax_model.msgpack", DIFFUSION, ""),
            ("diffusion_pytorch_model.non_ema.bin", DIFFUSION, "non_ema"),
            ("sd_xl_base_1.0.ckpt", "sd_xl_base_1.0", ""),
            ("pytorch_model_v2.bin", "pytorch_model_v2", ""),
        ] {
            assert_eq!(identity(name), (family.into(), variant.into()), "{name}");
        }
    }

    #[test]
    fn an_index_names_the_set_that_it_describes() {
        for (name, described) in [
            ("model.safetensors.index.json", Some("model.safetensors")),
            ("model.safetensors.index.fp16.json", Some("model.fp16.safetensors")),
            ("pytorch_model.bin.index.json", Some("pytorch_model.bin")),
            ("index.json", None),
            ("model_index.json", None),
            ("a.indexed.json", None),
            ("config.json", None),
        ] {
            assert_eq!(described_by_index(name).as_deref(), described, "{name}");
        }
    }

    #[test]
    fn a_tokenizer_or_a_configuration_is_not_a_part_of_the_weights() {
        let is_weights = |path: &str| is_weights_of_copy(path, |beside| beside == "net.bin");
        for path in [
            "model.onnx",
            "model.onnx_data",
            "model.onnx_data_1",
            "model.onnx.data",
            "a/b.mlpackage/Manifest.json",
            "net.xml",
            "model.safetensors.index.json",
            "variables/variables.data-00000-of-00001",
            "variables/variables.index",
            "CONSOLIDATED.00.PTH",
            "onnx__MatMul_4567",
        ] {
            assert!(is_weights(path), "{path}");
        }
        for path in [
            "tokenizer.model",
            "openvino_tokenizer.bin",
            "openvino_tokenizer.xml",
            "vocab.bin",
            "params.json",
            "model_index.json",
            "other.xml",
            "model.gguf",
            "merges.txt",
            "model.onnx.json",
        ] {
            assert!(!is_weights(path), "{path}");
        }
    }
}
