//! What training has left in a repo, and no server reads. Only what is certain.

use std::collections::BTreeMap;

use super::listing::Listing;
use super::names::{Identity, Weights, looks_like_weights};
use crate::model::RemoteFile;

/// Tells which files are training state.
pub struct Training<'l, 'a> {
    listing: &'l Listing<'a>,
    /// Directories that were looked at, and whether all of it is training state.
    directories: BTreeMap<&'a str, bool>,
}

impl<'l, 'a> Training<'l, 'a> {
    pub fn new(listing: &'l Listing<'a>) -> Self {
        Self { listing, directories: BTreeMap::new() }
    }

    pub fn has(&mut self, file: &'a RemoteFile) -> bool {
        let path = file.path.as_str();
        let is_inside = path.match_indices('/').any(|(end, _)| {
            let directory = &path[..end];
            let name = directory.rsplit('/').next().unwrap_or(directory);
            let kind = Kind::of(name);
            kind != Kind::Other && self.is_certain(directory, kind)
        });
        is_inside || self.is_state_file(file)
    }

    /// `directory` is known by its name. It is left out if the one above has what is to be served: a
    /// checkpoint that stands alone is the model.
    fn is_certain(&mut self, directory: &'a str, kind: Kind) -> bool {
        if let Some(known) = self.directories.get(directory) {
            return *known;
        }
        let listing = self.listing;
        let above = directory.rsplit_once('/').map_or("", |(above, _)| above);
        let inside = listing.below(directory);
        let any = |is: &dyn Fn(&RemoteFile) -> bool| inside.iter().any(is);
        let is_replaced = listing.has_model(above)
            || (listing.has_adapter(above)
                && !any(&|file| {
                    let identity = Weights::parse(file.path.name()).map(|it| it.identity());
                    identity.is_some_and(|it| Identity::MODELS.contains(&it))
                }));
        let is_certain = match kind {
            Kind::Checkpoint => is_replaced,
            Kind::MaybeCheckpoint => is_replaced && any(&|file| is_evidence(file.path.name())),
            Kind::Runs => {
                any(&|file| file.path.name().contains("tfevents"))
                    && (is_replaced || !any(&|file| looks_like_weights(file.path.as_str())))
            }
            Kind::Other => false,
        };
        self.directories.insert(directory, is_certain);
        is_certain
    }

    fn is_state_file(&self, file: &RemoteFile) -> bool {
        let name = file.path.name();
        if is_state_by_name(name) {
            return true;
        }
        // Names that a model can have as well: a diffusion's scheduler, a scaler of time series.
        let directory = file.path.parent().unwrap_or("");
        let may_be = matches!(
            name,
            "scheduler.pt" | "scheduler.bin" | "scaler.pt" | "scaler.bin" | "sampler.bin"
        ) || (name.starts_with("random_states_") && name.ends_with(".pkl"));
        may_be && EVIDENCE.iter().any(|evidence| self.listing.has(directory, evidence))
    }
}

/// Files that say by their name that a trainer keeps its state beside them.
const EVIDENCE: [&str; 4] =
    ["optimizer.pt", "optimizer.bin", "trainer_state.json", "training_args.bin"];

/// What the name of a directory says.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// `checkpoint-500`, DeepSpeed's `global_step500`.
    Checkpoint,
    /// `checkpoint-best`: may be what the authors want to be used.
    MaybeCheckpoint,
    /// Where TensorBoard's files go.
    Runs,
    Other,
}

impl Kind {
    fn of(name: &str) -> Self {
        let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let after = |start| name.strip_prefix(start);
        match (after("checkpoint-"), after("global_step")) {
            (Some(rest), _) | (_, Some(rest)) if is_number(rest) => Self::Checkpoint,
            (Some(_), _) => Self::MaybeCheckpoint,
            _ if name == "runs" => Self::Runs,
            _ => Self::Other,
        }
    }
}

fn is_evidence(name: &str) -> bool {
    EVIDENCE.contains(&name) || is_state_by_name(name)
}

/// Whether a file of this name is training state wherever it lies.
pub fn is_state_by_name(name: &str) -> bool {
    let numbered = |start: &str, end: &str| {
        let middle = name.strip_prefix(start).and_then(|rest| rest.strip_suffix(end));
        middle.is_some_and(|middle| {
            let digits = middle.strip_prefix('_').unwrap_or(middle);
            digits.bytes().all(|byte| byte.is_ascii_digit())
        })
    };
    name == "training_args.bin"
        || [".pt", ".pth", ".bin"].iter().any(|end| numbered("optimizer", end))
        || (name.starts_with("rng_state") && name.ends_with(".pth"))
        || name.ends_with("_optim_states.pt")
        || name.starts_with("events.out.tfevents.")
}
