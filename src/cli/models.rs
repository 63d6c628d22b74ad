//! Which models a command line names, and where each is to lie.

use std::io::Read;
use std::path::{Path, PathBuf};

use super::fetch::{FetchArgs, LayoutKind};
use crate::Error;
use crate::environment;
use crate::fleet::{Entry, MAX_BYTES, ModelsFile};
use crate::model::hf_cache::Layout;
use crate::model::{ModelDir, Selection, SourceUri, text};
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
}

impl Model {
    /// What it is called where there are several: DEST, or its last part.
    pub fn name(&self) -> &str {
        self.destination.family.path().as_str()
    }
}

impl FetchArgs {
    /// The models that the arguments, or the file that they name, ask for.
    pub fn models(&self) -> Result<Vec<Model>, Error> {
        let models = match &self.models_file {
            Some(file) => self.models_of_file(file)?,
            None if !self.only.is_empty() => {
                return Err(Error::Usage(
                    "--only chooses among the models of --models FILE".into(),
                ));
            }
            None => self.models_of_arguments()?,
        };
        self.check_layout()?;
        if self.link.is_some() && models.len() > 1 {
            return Err(Error::Usage(format!(
                "--link leads to one model, and there are {}; fetch them one by one",
                models.len()
            )));
        }
        for (n, model) in models.iter().enumerate() {
            let path = model.destination.path();
            if models[..n].iter().any(|other| other.destination.path() == path) {
                return Err(Error::Usage(format!("two models have the DEST `{}`", path.display())));
            }
        }
        Ok(models)
    }

    fn models_of_arguments(&self) -> Result<Vec<Model>, Error> {
        let pairs: Vec<(&String, Option<&String>)> = match self.models.as_slice() {
            all if self.layout == LayoutKind::HfCache => all.iter().map(|it| (it, None)).collect(),
            [source] => vec![(source, None)],
            all if all.len() % 2 == 0 => {
                all.chunks_exact(2).map(|pair| (&pair[0], Some(&pair[1]))).collect()
            }
            _ => {
                return Err(Error::Usage(
                    "several models are given as pairs: SOURCE DEST SOURCE DEST …".into(),
                ));
            }
        };
        if !self.expect_revision.is_empty() && self.expect_revision.len() != pairs.len() {
            return Err(Error::Usage(format!(
                "--expect-revision is given {} times for {} models; give one for each SOURCE",
                self.expect_revision.len(),
                pairs.len()
            )));
        }
        let also = self.also()?;
        if !also.is_empty() && pairs.len() > 1 {
            return Err(Error::Usage(format!(
                "--also names another place of the bytes of one SOURCE, and there are {}; fetch them \
                 one by one, or list them in a file for --models",
                pairs.len()
            )));
        }
        let selection = self.selection();
        let models = pairs.into_iter().enumerate().map(|(n, (source, dest))| {
            let uri = self.source(source)?;
            let destination = match dest {
                None if self.layout == LayoutKind::HfCache => self.place_in_cache(&uri)?,
                Some(dest) => self.destination(dest)?,
                None => self.destination(&uri.default_family())?,
            };
            let expect_revision = self.expect_revision.get(n).map(|sha| sha.to_ascii_lowercase());
            let also = also.iter().filter(|place| **place != uri).cloned().collect();
            let (selection, layout) = (selection.clone(), self.layout.into());
            Ok(Model { uri, also, selection, layout, destination, expect_revision })
        });
        models.collect()
    }

    /// What a models file lists. What it says of each model has no flag beside it.
    fn models_of_file(&self, file: &Path) -> Result<Vec<Model>, Error> {
        if !self.models.is_empty() {
            return Err(Error::Usage("give either SOURCE or --models FILE".into()));
        }
        let of_each = [
            ("--include", !self.include.is_empty()),
            ("--exclude", !self.exclude.is_empty()),
            ("--all", self.all),
            ("--also", !self.also.is_empty()),
            ("--expect-revision", !self.expect_revision.is_empty()),
        ];
        if let Some((flag, _)) = of_each.iter().find(|(_, is_given)| *is_given) {
            return Err(Error::Usage(format!(
                "{flag} is said of each model in the file that --models names, and not beside it"
            )));
        }
        let shown = file.display();
        let refuse = |what: String| Error::Usage(format!("--models `{shown}`: {what}"));
        let text = read(file).map_err(refuse)?;
        let listed = ModelsFile::parse(&text, &environment::of_user)
            .map_err(|problem| refuse(problem.to_string()))?;
        for name in &self.only {
            if !listed.models.iter().any(|entry| entry.name == *name) {
                let names: Vec<&str> =
                    listed.models.iter().map(|entry| entry.name.as_str()).take(20).collect();
                let name = text::inert(name, 200);
                return Err(refuse(format!(
                    "no model `{name}`, which --only names; there are {}",
                    names.join(", ")
                )));
            }
        }
        let is_wanted = |entry: &Entry| self.only.is_empty() || self.only.contains(&entry.name);
        let models = listed.models.into_iter().filter(is_wanted).map(|entry| {
            let Entry { name, source, also, selection, expect } = entry;
            let layout = Layout::from(self.layout);
            let destination = match layout {
                Layout::HfCache => self.place_in_cache(&source)?,
                Layout::Plain => self.destination(&name)?,
            };
            Ok(Model { uri: source, also, selection, layout, destination, expect_revision: expect })
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
            return Err(Error::Usage("--link-root is no absolute directory name".into()));
        }
        Ok(Some(root.clone()))
    }

    /// What --also names, each place once.
    fn also(&self) -> Result<Vec<SourceUri>, Error> {
        let mut places = Vec::new();
        for text in self.also.iter().flat_map(|texts| SourceUri::split_list(texts)) {
            let place = SourceUri::parse(text);
            let place = place.map_err(|error| Error::Usage(format!("--also: {error}")))?;
            if !places.contains(&place) {
                places.push(place);
            }
        }
        Ok(places)
    }

    /// A relative DEST is below the root. An absolute one may be as well; where nobody has named a
    /// root, it is a place of its own.
    fn destination(&self, dest: &str) -> Result<Destination, Error> {
        let named = self.root.is_some();
        let root = self.root.clone().unwrap_or_else(|| DEFAULT_ROOT.into());
        let root = absolute(&root).ok_or_else(unusable_root)?;
        let shown = text::inert(dest, 200);
        let refuse = |why: &str| Error::Usage(format!("DEST `{shown}` {why}"));
        if dest.contains("://") {
            return Err(refuse("looks like a SOURCE; write SOURCE DEST SOURCE DEST …"));
        }
        if !dest.starts_with('/') {
            let family = ModelDir::parse(dest).map_err(refuse)?;
            return Ok(Destination { root, family });
        }
        let inside = root.to_str().and_then(|root| dest.strip_prefix(root.trim_end_matches('/')));
        if let Some(inside) = inside.and_then(|rest| rest.strip_prefix('/')) {
            let family = ModelDir::parse(inside.trim_start_matches('/')).map_err(refuse)?;
            return Ok(Destination { root, family });
        }
        if named {
            return Err(refuse(&format!("leaves the root `{}`", root.display())));
        }
        let (parent, name) = dest.trim_end_matches('/').rsplit_once('/').unwrap_or_default();
        let is_odd = |part: &str| matches!(part, "." | "..") || part.chars().any(text::is_control);
        if parent.split('/').any(is_odd) {
            return Err(refuse("is not a plain absolute path"));
        }
        let family = ModelDir::parse(name).map_err(refuse)?;
        let root = if parent.is_empty() { PathBuf::from("/") } else { PathBuf::from(parent) };
        Ok(Destination { root, family })
    }
}

pub(super) fn unusable_root() -> Error {
    Error::Usage("--root is no usable directory name".into())
}

pub(super) fn absolute(path: &Path) -> Option<PathBuf> {
    let path = std::path::absolute(path).ok()?;
    path.to_str().is_some_and(|path| !path.chars().any(text::is_control)).then_some(path)
}

/// The text of a models file, if it can be one.
fn read(file: &Path) -> Result<String, String> {
    let opened = std::fs::File::open(file).map_err(|error| error.to_string())?;
    let mut text = String::new();
    let read = opened.take(MAX_BYTES + 1).read_to_string(&mut text);
    read.map_err(|error| error.to_string())?;
    match text.len() as u64 {
        0..=MAX_BYTES => Ok(text),
        _ => Err(format!("it is larger than {}", text::size(MAX_BYTES))),
    }
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
