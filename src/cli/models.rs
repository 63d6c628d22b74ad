//! Which models a command line names, and where each is to lie.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::fetch::FetchArgs;
use super::listed::{Positional, of_each};
use super::values::LayoutKind;
use crate::Error;
use crate::fleet::{Entry, LockedModel};
use crate::model::hf_cache::Layout;
use crate::model::{Locked, Message, ModelDir, Selection, SignedBy, SourceUri, text};
use crate::volume::Destination;

/// Where models go if nobody says otherwise.
pub(super) const DEFAULT_ROOT: &str = "/data/models";

/// One model to fetch.
#[derive(Clone, Debug)]
pub struct Model {
    pub uri: SourceUri,
    /// Other places of the same bytes, in order of preference.
    pub also: Vec<SourceUri>,
    pub selection: Selection,
    pub layout: Layout,
    pub destination: Destination,
    pub expect_revision: Option<String>,
    /// What a lock file says that it is.
    pub locked: Option<Arc<Locked>>,
    /// Whose signature it must have.
    pub signed_by: Option<SignedBy>,
}

impl Model {
    /// What it is called where there are several: DEST, or its last part.
    pub fn name(&self) -> &str {
        self.destination.family.path().as_str()
    }
}

impl FetchArgs {
    /// The models that are to be fetched, and where to.
    pub fn models(&self) -> Result<Vec<Model>, Error> {
        self.check_layout()?;
        self.check()?;
        let mut models = match &self.locked {
            Some(file) => self.locked_models(file)?,
            None => self.listed_models()?,
        };
        let signed_by = self.signature.signed_by()?;
        for model in &mut models {
            // What a file says of one model comes first.
            model.signed_by = model.signed_by.take().or_else(|| signed_by.clone());
            let mut places = self.mirrors_of(model)?;
            places.retain(|place| *place != model.uri && !model.also.contains(place));
            model.also.splice(0..0, places);
        }
        if self.link.is_some() && models.len() > 1 {
            return Err(Error::Usage(
                Message::new(format!("--link leads to one model, but there are {}", models.len()))
                    .hint("fetch them one by one"),
            ));
        }
        for (n, model) in models.iter().enumerate() {
            let path = model.destination.path();
            let others = models[..n].iter().map(|other| other.destination.path());
            for other in others {
                if other == path {
                    let path = path.display();
                    return Err(Error::Usage(
                        Message::new(format!("two models have the DEST `{path}`"))
                            .hint("give each model a DEST of its own"),
                    ));
                }
                // Which one is there first would decide whether the other fails.
                if path.starts_with(&other) || other.starts_with(&path) {
                    let (inner, outer) =
                        if path.starts_with(&other) { (&path, &other) } else { (&other, &path) };
                    return Err(Error::Usage(
                        Message::new(format!(
                            "the DEST `{}` lies inside the DEST `{}`",
                            inner.display(),
                            outer.display()
                        ))
                        .hint("choose directories that are not inside each other"),
                    ));
                }
            }
        }
        Ok(models)
    }

    /// Where `--mirror` says that `model` lies as well.
    fn mirrors_of(&self, model: &Model) -> Result<Vec<SourceUri>, Error> {
        let prefixes = self.mirror.iter().flat_map(|texts| SourceUri::split_list(texts));
        let place = |prefix: &str| {
            let uri = format!("{}/{}/", prefix.trim_end_matches('/'), model.name());
            match SourceUri::parse(&uri) {
                Ok(place @ (SourceUri::S3(_) | SourceUri::Gs(_) | SourceUri::Az(_))) => Ok(place),
                Ok(place @ (SourceUri::Web(_) | SourceUri::Directory(_))) => Ok(place),
                Ok(SourceUri::Hub(_) | SourceUri::Oci(_) | SourceUri::ModelScope(_)) => {
                    Err(Error::Usage(
                        Message::new("--mirror does not name a prefix of a bucket")
                            .hint("write s3://bucket/prefix/"),
                    ))
                }
                Err(error) => Err(Error::Usage(Message::from(error).after("--mirror: "))),
            }
        };
        prefixes.map(place).collect()
    }

    fn listed_models(&self) -> Result<Vec<Model>, Error> {
        let positional = match self.layout {
            LayoutKind::HfCache => Positional::Sources,
            LayoutKind::Plain => Positional::Pairs,
        };
        let entries = self.listed.entries(positional)?;
        let expected = &self.expect_revision;
        if !expected.is_empty() && self.listed.models_file.is_some() {
            return Err(of_each("--expect-revision", "--models"));
        }
        if !expected.is_empty() && expected.len() != entries.len() {
            return Err(Error::Usage(
                Message::new(format!(
                    "--expect-revision is given {} times for {} models",
                    expected.len(),
                    entries.len()
                ))
                .hint("give one for each SOURCE"),
            ));
        }
        let models = entries.into_iter().enumerate().map(|(n, entry)| {
            let Entry { name, source: uri, also, selection, expect, signed_by } = entry;
            let (destination, layout) = (self.place(&uri, &name)?, self.layout.into());
            let expect_revision = match self.expect_revision.get(n) {
                Some(sha) => Some(sha.to_ascii_lowercase()),
                None => expect,
            };
            let locked = None;
            Ok(Model {
                uri,
                also,
                selection,
                layout,
                destination,
                expect_revision,
                locked,
                signed_by,
            })
        });
        models.collect()
    }

    fn place(&self, source: &SourceUri, name: &str) -> Result<Destination, Error> {
        match self.layout {
            LayoutKind::HfCache => self.place_in_cache(source),
            LayoutKind::Plain => self.destination(name),
        }
    }

    fn locked_models(&self, file: &Path) -> Result<Vec<Model>, Error> {
        if !self.expect_revision.is_empty() {
            return Err(of_each("--expect-revision", "--locked"));
        }
        let models = self.listed.of_lock(file)?.into_iter().map(|model| {
            let LockedModel { name, source: uri, also, selection, signed_by, content } = model;
            let (destination, layout) = (self.place(&uri, &name)?, self.layout.into());
            let (expect_revision, locked) = (None, Some(Arc::new(content)));
            Ok(Model {
                uri,
                also,
                selection,
                layout,
                destination,
                expect_revision,
                locked,
                signed_by,
            })
        });
        models.collect()
    }

    /// Whether `root` is one that holds models, and not just the directory above a DEST.
    pub fn is_shared_root(&self, root: &Path) -> bool {
        if self.layout == LayoutKind::HfCache {
            return true;
        }
        let named = self.root.clone().unwrap_or_else(|| DEFAULT_ROOT.into());
        std::path::absolute(named).is_ok_and(|named| named == *root)
    }

    /// Where a server sees the root, if that is elsewhere.
    pub fn link_root(&self) -> Result<Option<PathBuf>, Error> {
        let Some(root) = &self.link_root else { return Ok(None) };
        let is_plain = |root: &str| root.starts_with('/') && !root.chars().any(text::is_control);
        if !root.to_str().is_some_and(is_plain) {
            return Err(Error::Usage(
                Message::new("--link-root is not an absolute directory name")
                    .hint("write it from `/` on"),
            ));
        }
        Ok(Some(root.clone()))
    }

    /// A relative DEST is below the root. An absolute one may be as well; where nobody has named a
    /// root, it is a place of its own.
    fn destination(&self, dest: &str) -> Result<Destination, Error> {
        let named = self.root.is_some();
        let root = self.root.clone().unwrap_or_else(|| DEFAULT_ROOT.into());
        let root = absolute(&root).ok_or_else(unusable_root)?;
        let shown = SourceUri::shown(dest);
        let refuse = |message: Message| Error::Usage(message.after(format!("DEST `{shown}` ")));
        let unusable = |why: &str| refuse(Message::new(why).hint(ModelDir::HINT));
        if dest.contains("://") {
            let what = Message::new("looks like a SOURCE");
            return Err(refuse(what.hint("write SOURCE DEST SOURCE DEST …")));
        }
        if !dest.starts_with('/') {
            let family = ModelDir::parse(dest).map_err(unusable)?;
            return Ok(Destination { root, family });
        }
        let inside = root.to_str().and_then(|root| dest.strip_prefix(root.trim_end_matches('/')));
        if let Some(inside) = inside.and_then(|rest| rest.strip_prefix('/')) {
            let family = ModelDir::parse(inside.trim_start_matches('/')).map_err(unusable)?;
            return Ok(Destination { root, family });
        }
        if named {
            let what = Message::new(format!("leaves the root `{}`", root.display()));
            return Err(refuse(what.hint("name a directory below it, or change --root")));
        }
        let (parent, name) = dest.trim_end_matches('/').rsplit_once('/').unwrap_or_default();
        let is_odd = |part: &str| matches!(part, "." | "..") || part.chars().any(text::is_control);
        if parent.split('/').any(is_odd) {
            let what = Message::new("is not a plain absolute path");
            return Err(refuse(what.hint("write it without `.` and `..`")));
        }
        let family = ModelDir::parse(name).map_err(unusable)?;
        let root = if parent.is_empty() { PathBuf::from("/") } else { PathBuf::from(parent) };
        Ok(Destination { root, family })
    }
}

pub(super) fn unusable_root() -> Error {
    Error::Usage(
        Message::new("--root is not a usable directory name")
            .hint("name a path of UTF-8 without control characters"),
    )
}

pub(super) fn absolute(path: &Path) -> Option<PathBuf> {
    let path = std::path::absolute(path).ok()?;
    path.to_str().is_some_and(|path| !path.chars().any(text::is_control)).then_some(path)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::{Cli, Command};
    use super::*;

    fn destination(arguments: &[&str]) -> Result<PathBuf, Error> {
        let cli =
            Cli::try_parse_from([&["weightlift", "fetch"], arguments].concat()).expect("parses");
        let Command::Fetch(args) = cli.command else { panic!("is fetch") };
        Ok(args.models()?.pop().expect("one").destination.path())
    }

    #[test]
    fn dest_is_below_the_root_or_a_place_of_its_own() {
        let path =
            |arguments: &[&str]| destination(arguments).expect("valid").display().to_string();
        assert_eq!(path(&["hf://org/BGE-Large"]), "/data/models/bge-large");
        assert_eq!(path(&["hf://org/x", "embeddings/bge"]), "/data/models/embeddings/bge");
        assert_eq!(path(&["hf://org/x", "/data/models/a"]), "/data/models/a");
        assert_eq!(path(&["hf://org/x", "/mnt/models"]), "/mnt/models");
        assert_eq!(path(&["--root", "/r", "hf://org/x", "/r/a/b/"]), "/r/a/b");
    }

    #[test]
    fn a_dest_that_leaves_the_root_is_a_usage_error() {
        for dest in
            ["../x", "a/../../x", ".weightlift", "/", "/a/../b", "a/.weightlift/b", "hf://a/b"]
        {
            let error = destination(&["hf://org/x", dest]).expect_err(dest);
            assert_eq!(error.class().exit_code(), 2, "{dest}");
        }
        for dest in ["/elsewhere", "/rx", "/r/../x", "/r"] {
            let error = destination(&["--root", "/r", "hf://org/x", dest]).expect_err(dest);
            assert_eq!(error.class().exit_code(), 2, "{dest}");
        }
    }
}
