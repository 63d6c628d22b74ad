//! Which models a command is about: by arguments, by a models file, by a lock file.

use std::io::Read;
use std::path::{Path, PathBuf};

use clap::{Args, ValueHint};

use super::help::{MODELS, SOURCE};
use super::sources::SelectionArgs;
use crate::Error;
use crate::environment;
use crate::fleet::{Entry, LockFile, LockedModel, MAX_BYTES, MAX_LOCK_BYTES, ModelsFile};
use crate::model::{Message, SourceUri, text};

/// Which models a command is about.
#[derive(Debug, Default, Args)]
pub struct ModelsArgs {
    /// What to fetch, and where to: SOURCE [DEST], or pairs of them
    #[arg(value_name = "SOURCE [DEST]")]
    pub models: Vec<String>,

    /// Take the models that FILE lists
    ///
    /// FILE is a YAML document, such as a key of a ConfigMap. docs/fleet.md describes it.
    #[arg(long = "models", env = "WEIGHTLIFT_MODELS", value_name = "FILE", value_hint = ValueHint::FilePath,
          help_heading = MODELS)]
    pub models_file: Option<PathBuf>,

    /// Take only the model NAME of the file
    ///
    /// Repeat the flag, or separate names with commas.
    #[arg(long, env = "WEIGHTLIFT_ONLY", value_name = "NAME", value_delimiter = ',', help_heading = MODELS)]
    pub only: Vec<String>,

    #[command(flatten)]
    pub selected: SelectionArgs,

    /// Read first from another place of the same bytes
    ///
    /// weightlift lists the files of SOURCE alone. It reads a file from the other place if that publishes the
    /// same SHA-256. SOURCE gives the files that the other places do not have. Repeat the flag in order of
    /// preference, or separate places with commas.
    #[arg(long, env = "WEIGHTLIFT_ALSO", value_name = "SOURCE", help_heading = SOURCE)]
    pub also: Vec<String>,
}

/// What the arguments are that are no flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Positional {
    /// SOURCE, or SOURCE DEST SOURCE DEST …
    Pairs,
    /// SOURCE SOURCE …: where each is to lie follows from that.
    Sources,
}

impl ModelsArgs {
    /// The models that the arguments, or the file that they name, ask for.
    pub fn entries(&self, positional: Positional) -> Result<Vec<Entry>, Error> {
        match &self.models_file {
            Some(file) => self.of_file(file),
            None if !self.only.is_empty() => Err(Error::Usage(
                Message::new("--only needs --models FILE or --locked FILE").hint("add one of them"),
            )),
            None if self.models.is_empty() => Err(Error::Usage(
                Message::new("no model is named")
                    .hint("give SOURCE [DEST], --models FILE or --locked FILE"),
            )),
            None => self.of_arguments(positional),
        }
    }

    fn of_arguments(&self, positional: Positional) -> Result<Vec<Entry>, Error> {
        let pairs: Vec<(&String, Option<&String>)> = match self.models.as_slice() {
            all if positional == Positional::Sources => all.iter().map(|it| (it, None)).collect(),
            [source] => vec![(source, None)],
            all if all.len() % 2 == 0 => {
                all.chunks_exact(2).map(|pair| (&pair[0], Some(&pair[1]))).collect()
            }
            _ => {
                let what =
                    format!("{} arguments are not pairs of SOURCE and DEST", self.models.len());
                let hint = "give several models as pairs: SOURCE DEST SOURCE DEST …";
                return Err(Error::Usage(Message::new(what).hint(hint)));
            }
        };
        let also = self.also()?;
        if !also.is_empty() && pairs.len() > 1 {
            return Err(Error::Usage(
                Message::new(format!(
                    "--also names another place of one SOURCE, but there are {}",
                    pairs.len()
                ))
                .hint("fetch them one by one, or list them in a file for --models"),
            ));
        }
        let selection = self.selected.selection();
        let entries = pairs.into_iter().map(|(source, dest)| {
            let source = SourceUri::parse(source)?;
            let name = dest.cloned().unwrap_or_else(|| source.default_family());
            let also = also.iter().filter(|place| **place != source).cloned().collect();
            let selection = selection.clone().of(&source);
            Ok(Entry { name, source, also, selection, expect: None, signed_by: None })
        });
        entries.collect()
    }

    /// What a models file lists. What it says of each model has no flag beside it.
    fn of_file(&self, file: &Path) -> Result<Vec<Entry>, Error> {
        self.check_alone("--models", !self.also.is_empty())?;
        let refuse = |what: Message| refused("--models", file, what);
        let text = read(file, MAX_BYTES).map_err(refuse)?;
        let listed = ModelsFile::parse(&text, &environment::of_user)
            .map_err(|problem| refuse(problem.into()))?;
        self.chosen(listed.models, |entry| &entry.name).map_err(refuse)
    }

    /// What a lock file names. Other places of one model may be given beside it.
    pub(super) fn of_lock(&self, file: &Path) -> Result<Vec<LockedModel>, Error> {
        if self.models_file.is_some() {
            return Err(Error::Usage(
                Message::new("--models and --locked are both given").hint("leave one of them out"),
            ));
        }
        self.check_alone("--locked", false)?;
        let locked = read_lock_if_any(file)?.ok_or_else(|| {
            let what = Message::new("there is no such file");
            refused(
                "--locked",
                file,
                what.hint("make one with `weightlift pin`, or check the path"),
            )
        })?;
        let refuse = |what: Message| refused("--locked", file, what);
        let mut models = self.chosen(locked.models, |model| &model.name).map_err(refuse)?;
        let also = self.also()?;
        match models.as_mut_slice() {
            _ if also.is_empty() => {}
            [model] => {
                model.also.retain(|place| !also.contains(place));
                let others = also.into_iter().filter(|place| *place != model.source);
                model.also.splice(0..0, others);
            }
            all => {
                return Err(Error::Usage(Message::new(format!("--also names another place of one model, but there are {}", all.len())).hint("choose one with --only, or list the places in the models file and pin again")));
            }
        }
        Ok(models)
    }

    pub(super) fn check_alone(&self, flag: &str, has_also: bool) -> Result<(), Error> {
        if !self.models.is_empty() {
            let what = format!("SOURCE and {flag} FILE are both given");
            return Err(Error::Usage(Message::new(what).hint("leave one of them out")));
        }
        match self.selected.given().chain(has_also.then_some("--also")).next() {
            None => Ok(()),
            Some(other) => Err(of_each(other, flag)),
        }
    }

    /// Those of `models` that `--only` names.
    pub(super) fn chosen<T>(
        &self,
        models: Vec<T>,
        name_of: impl Fn(&T) -> &String,
    ) -> Result<Vec<T>, Message> {
        let unknown = self.only.iter().find(|name| !models.iter().any(|it| name_of(it) == *name));
        if let Some(name) = unknown {
            let names: Vec<&str> =
                models.iter().map(|model| name_of(model).as_str()).take(20).collect();
            let name = text::inert(name, 200);
            let hint = format!("choose among these: {}", names.join(", "));
            let what = format!("--only names `{name}`, but there is no such model");
            return Err(Message::new(what).hint(hint));
        }
        let is_wanted = |it: &T| self.only.is_empty() || self.only.contains(name_of(it));
        Ok(models.into_iter().filter(is_wanted).collect())
    }

    /// What --also names, each place once.
    pub(super) fn also(&self) -> Result<Vec<SourceUri>, Error> {
        let mut places = Vec::new();
        for text in self.also.iter().flat_map(|texts| SourceUri::split_list(texts)) {
            let place = SourceUri::parse(text);
            let place =
                place.map_err(|error| Error::Usage(Message::from(error).after("--also: ")))?;
            if !places.contains(&place) {
                places.push(place);
            }
        }
        Ok(places)
    }
}

/// What a lock file says, if it is there.
pub(super) fn read_lock_if_any(file: &Path) -> Result<Option<LockFile>, Error> {
    let refuse = |what: Message| refused("--locked", file, what);
    if matches!(file.try_exists(), Ok(false)) {
        return Ok(None);
    }
    let text = read(file, MAX_LOCK_BYTES).map_err(refuse)?;
    LockFile::parse(&text).map(Some).map_err(|problem| refuse(problem.into()))
}

fn refused(flag: &str, file: &Path, message: Message) -> Error {
    let file = text::inert(&file.to_string_lossy(), 300);
    Error::Usage(message.after(format!("{flag} `{file}`: ")))
}

pub(super) fn of_each(flag: &str, file: &str) -> Error {
    Error::Usage(
        Message::new(format!("{flag} is set for each model in the file of {file}"))
            .hint("write it there"),
    )
}

/// The text of a file, if it is no larger than `most`.
fn read(file: &Path, most: u64) -> Result<String, Message> {
    let opened = std::fs::File::open(file).map_err(unreadable)?;
    let mut text = String::new();
    let read = opened.take(most + 1).read_to_string(&mut text);
    read.map_err(unreadable)?;
    match text.len() as u64 {
        len if len <= most => Ok(text),
        _ => Err(format!("it is larger than {}", text::size(most)).into()),
    }
}

fn unreadable(error: std::io::Error) -> Message {
    Message::new(error.to_string()).hint("check the path, and the volume or ConfigMap it is from")
}
