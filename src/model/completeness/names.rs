//! What the name of a weight file says: its format, whose weights they are, and its number in a set.

/// Formats of weights, by the last extension in lower case.
const FORMATS: [&str; 12] = [
    "safetensors",
    "gguf",
    "bin",
    "pt",
    "pth",
    "ckpt",
    "h5",
    "msgpack",
    "ot",
    "onnx",
    "npz",
    "pkl",
];
/// Names that frameworks give to the weights of one and the same model.
const SAME_MODEL: [&str; 5] = ["model", "pytorch_model", "tf_model", "flax_model", "rust_model"];
const SAME_DIFFUSION_MODEL: [&str; 2] = ["diffusion_pytorch_model", "diffusion_flax_model"];
/// Weight files that are no model: what rides on one, or what its training has left.
const PARTS: [&str; 9] = [
    "adapter",
    "training_args",
    "optimizer",
    "scheduler",
    "scaler",
    "rng_state",
    "random_states",
    "mmproj",
    "imatrix",
];

/// As many as five digits can number: what is above is another kind of name.
const MAX_COUNT: u32 = 99_999;

/// Whose weights a file holds, its directory and its number left out.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Weights<'a> {
    /// `model` for every framework's name of it.
    family: &'a str,
    /// `fp16`, `8bit`, …: weights of their own. Empty for most.
    variant: &'a str,
    /// `safetensors`, …, in lower case.
    pub format: &'static str,
}

impl<'a> Weights<'a> {
    /// Of a file that is not numbered.
    pub fn of(name: &'a str) -> Option<Self> {
        let (head, extension) = name.rsplit_once('.')?;
        Some(Self::of_head(head, "", format(extension)?))
    }

    fn of_head(head: &'a str, variant: &'a str, format: &'static str) -> Self {
        let (stem, own) = head.split_once('.').unwrap_or((head, ""));
        let family = match stem {
            stem if SAME_MODEL.contains(&stem) => SAME_MODEL[0],
            stem if SAME_DIFFUSION_MODEL.contains(&stem) => SAME_DIFFUSION_MODEL[0],
            stem => stem,
        };
        Self { family, variant: if own.is_empty() { variant } else { own }, format }
    }

    /// Whether such a file on its own can be a whole model, rather than something beside one.
    pub fn can_be_a_model(&self) -> bool {
        let is_known = [SAME_MODEL[0], SAME_DIFFUSION_MODEL[0], "consolidated"];
        // Pickles hold anything: voices, tokenizers, optimizers.
        let says_all = matches!(self.format, "safetensors" | "gguf");
        (says_all && !self.is_a_part()) || is_known.contains(&self.family)
    }

    /// Whether its name says that it is no model on its own.
    pub fn is_a_part(&self) -> bool {
        let family = self.family.to_ascii_lowercase();
        PARTS.iter().any(|part| family.starts_with(part)) || family.contains("lora")
    }
}

fn format(extension: &str) -> Option<&'static str> {
    FORMATS.into_iter().find(|format| extension.eq_ignore_ascii_case(format))
}

/// The name of an index, which lists the shards of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexName<'a> {
    /// Whose shards it lists; nothing where the name does not tell.
    pub weights: Option<Weights<'a>>,
}

impl<'a> IndexName<'a> {
    /// `model.safetensors.index.json`, `tf_model.h5.index.json`,
    /// `diffusion_pytorch_model.safetensors.index.fp16.json`, …
    pub fn of(name: &'a str) -> Option<Self> {
        let (rest, json) = name.rsplit_once('.')?;
        if !json.eq_ignore_ascii_case("json") {
            return None;
        }
        let (rest, last) = rest.rsplit_once('.')?;
        let is_index = |part: &str| part.eq_ignore_ascii_case("index");
        let (weights, variant) = if is_index(last) {
            (rest, "")
        } else {
            let (rest, index) = rest.rsplit_once('.')?;
            // Only where the format is named: `search.index.v2.json` can be anything.
            (is_index(index) && Weights::of(rest).is_some()).then_some((rest, last))?
        };
        let of_format = weights.rsplit_once('.').and_then(|(head, extension)| {
            Some(Weights::of_head(head, variant, format(extension)?))
        });
        Some(Self { weights: of_format })
    }
}

/// A name with its number in a set: `model-00001-of-00003.safetensors`, `x.gguf.part1of2`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Numbered<'a> {
    pub set: SetName<'a>,
    pub number: u32,
    /// Digits of the number, zeros in front included.
    pub width: usize,
}

/// What the names of a set have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SetName<'a> {
    /// Up to the number.
    before: &'a str,
    /// Between the number and the count.
    between: &'static str,
    count: &'a str,
    after: &'a str,
}

impl<'a> Numbered<'a> {
    /// Only of names that are those of weights.
    pub fn of(name: &'a str) -> Option<Self> {
        let forms =
            [("-of-", ['-', '_', '.'].as_slice()), ("_of_", &['-', '_', '.']), ("of", &['t'])];
        let numbered =
            forms.iter().find_map(|(between, marks)| Self::shard(name, between, marks))?;
        numbered.set.weights().map(|_| numbered)
    }

    fn shard(name: &'a str, between: &'static str, marks: &[char]) -> Option<Self> {
        let at = name.rfind(between)?;
        let (head, rest) = (&name[..at], &name[at + between.len()..]);
        let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
        let (count, after) = rest.split_at(digits(rest));
        let width = head.bytes().rev().take_while(u8::is_ascii_digit).count();
        let (before, number) = head.split_at(head.len() - width);
        if !before.ends_with(marks) || !(after.is_empty() || after.starts_with('.')) {
            return None;
        }
        let set = SetName { before, between, count, after };
        let number: u32 = number.parse().ok()?;
        // Some count from 0, some from 1.
        let in_set = (1..=MAX_COUNT).contains(&set.count()?) && number <= set.count()?;
        in_set.then_some(Self { set, number, width })
    }
}

impl<'a> SetName<'a> {
    /// How many files the set has.
    pub fn count(&self) -> Option<u32> {
        self.count.parse().ok()
    }

    /// The name of number `number`, in `width` digits.
    pub fn file(&self, number: u32, width: usize) -> String {
        let Self { before, between, count, after } = self;
        format!("{before}{number:0width$}{between}{count}{after}")
    }

    /// All before and all behind the number.
    pub fn around_the_number(&self) -> (&'a str, String) {
        (self.before, format!("{}{}{}", self.between, self.count, self.after))
    }

    pub fn weights(&self) -> Option<Weights<'a>> {
        if self.between == "of" {
            return Weights::of(self.before.strip_suffix(".part")?);
        }
        let head = self.before.strip_suffix(['-', '_', '.'])?;
        if self.after.is_empty() {
            // `model.ckpt-1000.data-00000-of-00002`
            let head = head.strip_suffix(".data")?;
            return Some(Weights::of_head(head, "", "ckpt"));
        }
        // `model-00001-of-00002.fp16.safetensors` as well as `model.fp16-00001-of-00002.safetensors`.
        let (variant, extension) =
            self.after[1..].rsplit_once('.').unwrap_or(("", &self.after[1..]));
        Some(Weights::of_head(head, variant, format(extension)?))
    }
}

/// Whether a file of this name is an index, by any framework.
pub fn is_index(path: &str) -> bool {
    IndexName::of(path.rsplit('/').next().unwrap_or(path)).is_some()
}

/// Whether the name of an index says of which format it is; others may be no index at all.
pub fn names_its_format(path: &str) -> bool {
    let index = IndexName::of(path.rsplit('/').next().unwrap_or(path));
    index.is_some_and(|index| index.weights.is_some())
}

/// The path of `name` in `directory`.
pub(super) fn join(directory: &str, name: &str) -> String {
    if directory.is_empty() { name.to_owned() } else { format!("{directory}/{name}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_told_apart_by_family_variant_and_format() {
        let same = |a: &str, b: &str| Weights::of(a).expect(a) == Weights::of(b).expect(b);
        assert!(!same("model.safetensors", "pytorch_model.bin"));
        assert!(same("pytorch_model.safetensors", "model.safetensors"));
        assert!(same("model.SAFETENSORS", "model.safetensors"));
        assert!(!same("model.fp16.safetensors", "model.safetensors"));
        assert!(same("diffusion_flax_model.msgpack", "diffusion_pytorch_model.msgpack"));
        assert!(Weights::of("config.json").is_none() && Weights::of("bin").is_none());
        let model = |name: &str| Weights::of(name).expect(name).can_be_a_model();
        for name in ["x.safetensors", "x.Q4_K_M.gguf", "pytorch_model.bin", "consolidated.00.pth"] {
            assert!(model(name), "{name}");
        }
        for name in [
            "adapter_model.safetensors",
            "my_LoRA.safetensors",
            "training_args.bin",
            "optimizer.pt",
            "conds.pt",
            "mmproj-f16.gguf",
        ] {
            assert!(!model(name), "{name}");
        }
    }

    #[test]
    fn indexes_are_known_by_their_names() {
        let of = |name: &'static str| IndexName::of(name).map(|index| index.weights);
        for (name, like) in [
            ("model.safetensors.index.json", "model.safetensors"),
            ("pytorch_model.bin.index.json", "model.bin"),
            ("MODEL.SAFETENSORS.INDEX.JSON", "MODEL.safetensors"),
            ("tf_model.h5.index.json", "tf_model.h5"),
            ("flax_model.msgpack.index.json", "model.msgpack"),
            ("model.safetensors.index.fp16.json", "model.fp16.safetensors"),
            ("model.fp16.safetensors.index.json", "model.fp16.safetensors"),
        ] {
            assert_eq!(of(name), Some(Weights::of(like)), "{name}");
        }
        assert_eq!(of("model.index.json"), Some(None));
        for name in ["config.json", "index.json", "a.index.v2.json", "model.safetensors.index", ""]
        {
            assert_eq!(of(name), None, "{name}");
        }
        assert!(is_index("text_encoder/model.safetensors.index.json"));
    }

    #[test]
    fn numbers_are_read_from_every_form_of_a_set() {
        for (name, number, count, third) in [
            ("model-00001-of-00004.safetensors", 1, 4, "model-00003-of-00004.safetensors"),
            ("model-00000-of-00004.safetensors", 0, 4, "model-00003-of-00004.safetensors"),
            ("m.fp16-00002-of-00003.safetensors", 2, 3, "m.fp16-00003-of-00003.safetensors"),
            ("m-1-of-3.fp16.safetensors", 1, 3, "m-3-of-3.fp16.safetensors"),
            ("a-b-Q8_0-00003-of-00003.gguf", 3, 3, "a-b-Q8_0-00003-of-00003.gguf"),
            ("x.Q6_K.gguf.part1of2", 1, 2, "x.Q6_K.gguf.part3of2"),
            ("model_00002_of_00003.bin", 2, 3, "model_00003_of_00003.bin"),
            ("m.ckpt-9.data-00000-of-00001", 0, 1, "m.ckpt-9.data-00003-of-00001"),
        ] {
            let numbered = Numbered::of(name).expect(name);
            assert_eq!((numbered.number, numbered.set.count()), (number, Some(count)), "{name}");
            assert_eq!(numbered.set.file(3, numbered.width), third);
            assert_eq!(numbered.set.file(number, numbered.width), name);
        }
        for name in [
            "model.safetensors",
            "model-of-2.bin",
            "model-00003-of-00002.bin",
            "model-00000-of-00000.bin",
            "figure-1-of-3.png",
            "a-1-of-2x.bin",
            "a-1-of-99999999999.bin",
            "out-of-order.bin",
            "x.part1of2",
            "x.gguf.start1of2",
            "model-1-of-100000.bin",
            "-of-",
            "of",
        ] {
            assert_eq!(Numbered::of(name), None, "{name}");
        }
    }

    #[test]
    fn a_set_is_of_the_weights_that_its_index_is_of() {
        let index = IndexName::of("model.safetensors.index.fp16.json").and_then(|it| it.weights);
        for name in
            ["model.fp16-00001-of-00002.safetensors", "model-00001-of-00002.fp16.safetensors"]
        {
            assert_eq!(Numbered::of(name).and_then(|it| it.set.weights()), index, "{name}");
        }
    }
}
