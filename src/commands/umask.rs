//! The umask of a run: chosen once, before the first thing is created, by the directories that are written to. A warm
//! start creates nothing, so it does not look at them.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use super::places::{Places, TIME_FOR_PLACES, Target, place_of, places};
use crate::cli::Model;
use crate::fs::access;
use crate::model::hf_cache::{CachedModel, Layout};
use crate::model::umask::{is_divided, umask};
use crate::model::{Place, ShutOut, SourceUri, text};
use crate::report::Screen;
use crate::volume::Store;

/// Shared by the models of a run; a copy is the same.
#[derive(Clone, Default)]
pub struct RunUmask {
    asked: Option<u32>,
    models: Arc<[Target]>,
    chosen: Arc<OnceLock<u32>>,
}

impl RunUmask {
    /// For a run that publishes `models`.
    pub fn new(asked: Option<u32>, models: &[Model]) -> Self {
        let of = |model: &Model| {
            let cache = match (model.layout, &model.uri) {
                (Layout::HfCache, SourceUri::Hub(repo)) => Some(CachedModel::of(repo, None, false)),
                _ => None,
            };
            (model.destination.clone(), cache)
        };
        Self { asked, models: models.iter().map(of).collect(), chosen: Arc::default() }
    }

    /// Chooses it, unless that was done. Called before anything is created in `store`; those who come at the same
    /// time wait.
    pub fn settle(&self, store: &Store, screen: &Screen) {
        self.chosen.get_or_init(|| {
            if self.asked.is_some() {
                return choose(self.asked, &[], screen);
            }
            // This one has just answered.
            let own = place_of(store);
            let others = match &*self.models {
                [] | [_] => Places::default(),
                models => places(models, TIME_FOR_PLACES),
            };
            let of_others =
                |(path, _): &(PathBuf, Place)| others.known.iter().all(|(it, _)| it != path);
            let all: Vec<_> =
                own.filter(of_others).into_iter().chain(others.known.clone()).collect();
            let chosen = choose(None, &all, screen);
            if let Some(warning) = of_silent(&others.silent, chosen) {
                screen.warn(&warning);
            }
            chosen
        });
    }

    /// What to say of a model that is created in `store`, if those who look for it there cannot read it.
    pub fn warning(&self, store: &Store) -> Option<String> {
        let (None, Some(umask)) = (self.asked, self.chosen.get()) else { return None };
        let whom = match store.place()?.shuts_out(*umask)? {
            ShutOut::GroupAndOthers => "other users cannot read the model",
            ShutOut::Others => "users who are not in the group of its files cannot read the model",
        };
        Some(format!(
            "the umask is {umask:04o}, so {whom}, servers with another UID among them; give --umask 0022, or --umask \
             {umask:04o} if that is meant"
        ))
    }
}

/// Chooses the umask of a run that creates something in `places`.
pub fn choose(asked: Option<u32>, places: &[(PathBuf, Place)], screen: &Screen) -> u32 {
    let facts: Vec<Place> = places.iter().map(|(_, place)| *place).collect();
    let chosen = access::replace_umask(|inherited| umask(asked, inherited, &facts));
    if asked.is_none() && is_divided(chosen, &facts) {
        let first = |is_shared| places.iter().find(|(_, place)| place.is_shared() == is_shared);
        if let (Some((shared, _)), Some((own, _))) = (first(true), first(false)) {
            screen.warn(&format!(
                "the group of `{}` may write there, but the group of `{}` may not, so it cannot change \
                 what this run creates; fetch to them in two runs, or give --umask",
                shared.display(),
                own.display()
            ));
        }
    }
    chosen
}

/// That the volumes of some models had no say.
fn of_silent(silent: &[PathBuf], umask: u32) -> Option<String> {
    let first = text::inert(&silent.first()?.to_string_lossy(), 200);
    let others = match silent.len() - 1 {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    Some(format!(
        "`{first}`{others} did not answer within {}, so the group of that volume is not known: the umask \
         is {umask:04o}; set another one with --umask",
        text::duration(TIME_FOR_PLACES)
    ))
}
