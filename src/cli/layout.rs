//! Models that go into a cache of the Hub's own clients: where that is, and which flags mean nothing there.

use std::path::PathBuf;

use super::fetch::FetchArgs;
use super::models::{DEFAULT_ROOT, absolute, unusable_root};
use super::values::LayoutKind;
use crate::Error;
use crate::environment;
use crate::model::hf_cache::{HUB, repo_folder};
use crate::model::{Message, ModelDir, SourceUri, text};
use crate::volume::Destination;

impl FetchArgs {
    /// Fails where a flag asks for what a cache cannot be.
    pub(super) fn check_layout(&self) -> Result<(), Error> {
        if self.layout != LayoutKind::HfCache {
            return Ok(());
        }
        if !self.mirror.is_empty() {
            return Err(Error::Usage(
                Message::new("--mirror needs the DEST of a model, and a cache has none")
                    .hint("name the place with --also"),
            ));
        }
        let useless = [
            (self.replace, "--replace takes files away", "others may use them"),
            (
                self.keep_revisions.is_some() || self.keep_for.is_some(),
                "--keep-revisions and --keep-for remove revisions",
                "`hf cache rm` does that",
            ),
        ];
        if let Some(dest) = self.listed.models.iter().find(|it| !it.contains("://")) {
            return Err(Error::Usage(
                Message::new(format!(
                    "DEST `{}` is given, but a cache names its directories by their repos",
                    SourceUri::shown(dest)
                ))
                .hint("leave DEST out with --layout hf-cache"),
            ));
        }
        match useless.iter().find(|(is_given, ..)| *is_given) {
            Some((_, flag, why)) => Err(Error::Usage(
                Message::new(format!("{flag}, but nothing is removed from a cache ({why})"))
                    .hint("leave it out with --layout hf-cache"),
            )),
            None => Ok(()),
        }
    }

    /// The directory of a repo in the cache.
    pub(super) fn place_in_cache(&self, uri: &SourceUri) -> Result<Destination, Error> {
        let SourceUri::Hub(repo) = uri else {
            return Err(Error::Usage(
                Message::new(format!(
                    "{uri} is not a repo of a Hub, and --layout hf-cache holds only those"
                ))
                .hint("name hf://org/name, and this place with --also"),
            ));
        };
        let (root, hub) = self.cache_root()?;
        let name = format!("{hub}/{}", repo_folder(repo));
        let family = ModelDir::parse(&name).map_err(|why| {
            Error::Usage(
                Message::new(format!("`{}` {why}", text::inert(&name, 200))).hint(ModelDir::HINT),
            )
        })?;
        Ok(Destination { root, family })
    }

    /// `HF_HOME`, and the name of the directory of repos in it.
    fn cache_root(&self) -> Result<(PathBuf, String), Error> {
        let of_user = |name: &str| environment::text(name).map(PathBuf::from);
        if self.root.is_none()
            && let Some(cache) = of_user("HF_HUB_CACHE")
        {
            let refuse = || {
                Error::Usage(
                    Message::new("HF_HUB_CACHE is not a usable directory name")
                        .hint("name a path of UTF-8 without control characters"),
                )
            };
            let cache = absolute(&cache).ok_or_else(refuse)?;
            let name = cache.file_name().and_then(|name| name.to_str()).ok_or_else(refuse)?;
            return Ok((cache.parent().ok_or_else(refuse)?.to_owned(), name.to_owned()));
        }
        let root = self.root.clone().or_else(|| of_user("HF_HOME"));
        let root = root.unwrap_or_else(|| DEFAULT_ROOT.into());
        Ok((absolute(&root).ok_or_else(unusable_root)?, HUB.to_owned()))
    }
}
