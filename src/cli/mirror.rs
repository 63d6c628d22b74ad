//! `weightlift mirror`: its flags, and what they name.

use std::path::PathBuf;
use std::sync::Arc;

use clap::builder::BoolishValueParser;
use clap::{ArgAction, Args, ValueHint};

use super::fetch::Deadline;
use super::help::{MODELS, SOURCE, TRANSFER};
use super::listed::{ModelsArgs, Positional, of_each};
use super::sources::{SelectionArgs, SourceArgs};
use crate::Error;
use crate::model::{Locked, Message, S3Location, Selection, SourceUri};

#[derive(Debug, Args)]
#[command(after_long_help = "\
SOURCE is what `weightlift fetch --help` describes. Nothing is written to a disk. weightlift
hashes each file on its way. It compares the hash with the digest that SOURCE publishes before
the object appears. It writes the sentinel object last. It neither overwrites nor removes
objects that it has not written, and removes none of its own. SOURCE and the bucket share the
flags and variables of S3.")]
pub struct MirrorArgs {
    /// What to copy, and the prefix to copy it to
    ///
    /// With --models, --locked or --check give the prefix alone.
    #[arg(required = true, num_args = 1..=2, value_name = "[SOURCE] s3://BUCKET/PREFIX/")]
    places: Vec<String>,

    /// Copy the models that FILE lists, each below PREFIX/NAME/
    ///
    /// FILE is a YAML document. docs/fleet.md describes it.
    #[arg(long = "models", env = "WEIGHTLIFT_MODELS", value_name = "FILE", value_hint = ValueHint::FilePath,
          help_heading = MODELS)]
    pub(super) models_file: Option<PathBuf>,

    /// Copy exactly what FILE, a lock file of `weightlift pin`, names
    ///
    /// Each model comes below PREFIX/NAME/.
    #[arg(long, env = "WEIGHTLIFT_LOCKED", value_name = "FILE", value_hint = ValueHint::FilePath,
          help_heading = MODELS)]
    pub(super) locked: Option<PathBuf>,

    /// Take only the model NAME of the file
    ///
    /// Repeat the flag, or separate names with commas.
    #[arg(long, env = "WEIGHTLIFT_ONLY", value_name = "NAME", value_delimiter = ',', help_heading = MODELS)]
    only: Vec<String>,

    /// Write nothing; check what the bucket holds
    ///
    /// weightlift compares sizes, ETags and the checksums that the store keeps with the sentinel there.
    #[arg(long, env = "WEIGHTLIFT_CHECK", help_heading = MODELS,
          action = ArgAction::SetTrue, value_parser = BoolishValueParser::new())]
    pub check: bool,

    /// With --check: read and hash every byte too
    #[arg(long, env = "WEIGHTLIFT_DEEP", help_heading = MODELS,
          action = ArgAction::SetTrue, value_parser = BoolishValueParser::new())]
    pub deep: bool,

    /// Fail (exit 16) unless SOURCE resolves to this revision
    #[arg(long, env = "WEIGHTLIFT_EXPECT_REVISION", value_name = "SHA", hide_short_help = true,
          help_heading = MODELS)]
    expect_revision: Option<String>,

    #[command(flatten)]
    selected: SelectionArgs,

    /// Read first from another place of the same bytes
    ///
    /// SOURCE lists the files, and gives the files that the other places do not have. Repeat the flag in order of
    /// preference, or separate places with commas.
    #[arg(long, env = "WEIGHTLIFT_ALSO", value_name = "SOURCE", help_heading = SOURCE)]
    also: Vec<String>,

    #[command(flatten)]
    pub source: SourceArgs,

    /// Send up to N files or parts at the same time
    ///
    /// More than eight count as eight, because each part of 16 MiB is in memory.
    #[arg(long, env = "WEIGHTLIFT_CONNECTIONS", value_name = "N", default_value_t = 8,
          value_parser = clap::value_parser!(u16).range(1..=256), help_heading = TRANSFER)]
    pub connections: u16,

    #[command(flatten)]
    pub deadline: Deadline,
}

/// One model, and the prefix for it.
#[derive(Clone, Debug)]
pub struct MirrorModel {
    /// What it is called where there are several.
    pub name: String,
    /// None where only the prefix is looked at.
    pub source: Option<SourceUri>,
    pub also: Vec<SourceUri>,
    pub selection: Selection,
    pub expect_revision: Option<String>,
    /// What a lock file says that it is.
    pub locked: Option<Arc<Locked>>,
    /// Its key ends in `/`, or is empty.
    pub target: S3Location,
}

impl MirrorArgs {
    pub fn models(&self) -> Result<Vec<MirrorModel>, Error> {
        if self.deep && !self.check {
            return Err(Error::Usage(Message::new("--deep needs --check").hint("add it")));
        }
        let (source, target) = match self.places.as_slice() {
            [target] => (None, target),
            [source, target] => (Some(source), target),
            places => {
                let what = format!(
                    "mirror takes SOURCE and a prefix, but {} arguments are given",
                    places.len()
                );
                let hint = "give SOURCE and s3://bucket/prefix/";
                return Err(Error::Usage(Message::new(what).hint(hint)));
            }
        };
        let target = parse_target(target)?;
        if self.models_file.is_some() || self.locked.is_some() {
            return self.of_file(source, &target);
        }
        if !self.only.is_empty() {
            return Err(Error::Usage(
                Message::new("--only needs --models FILE or --locked FILE").hint("add one of them"),
            ));
        }
        let source = match (source, self.check) {
            (Some(source), false) => Some(SourceUri::parse(source)?),
            (None, true) => None,
            (None, false) => {
                return Err(Error::Usage(Message::new("no SOURCE is given").hint(
                    "give SOURCE before s3://bucket/prefix/, or --models FILE, or --check",
                )));
            }
            (Some(_), true) => {
                return Err(Error::Usage(
                    Message::new(
                        "--check compares a prefix with its own list, and SOURCE is given",
                    )
                    .hint("leave SOURCE out"),
                ));
            }
        };
        if let Some(SourceUri::S3(source)) = &source
            && source.bucket == target.bucket
            && directory(&source.key) == target.key
        {
            return Err(Error::Usage(
                Message::new("SOURCE and the prefix to write to are the same")
                    .hint("choose another prefix"),
            ));
        }
        let listed = ModelsArgs { also: self.also.clone(), ..ModelsArgs::default() };
        let selection = self.selected.selection();
        let selection = source.iter().fold(selection, |selection, source| selection.of(source));
        Ok(vec![MirrorModel {
            name: SourceUri::S3(target.clone()).default_family(),
            also: listed.also()?.into_iter().filter(|it| Some(it) != source.as_ref()).collect(),
            source,
            selection,
            expect_revision: self.expect_revision.as_ref().map(|sha| sha.to_ascii_lowercase()),
            locked: None,
            target,
        }])
    }

    /// The models that a file lists, each below its name.
    fn of_file(
        &self,
        source: Option<&String>,
        target: &S3Location,
    ) -> Result<Vec<MirrorModel>, Error> {
        let flag = if self.locked.is_some() { "--locked" } else { "--models" };
        if self.expect_revision.is_some() {
            return Err(of_each("--expect-revision", flag));
        }
        let listed = ModelsArgs {
            models: source.into_iter().cloned().collect(),
            models_file: self.models_file.clone(),
            only: self.only.clone(),
            also: self.also.clone(),
            selected: self.selected.clone(),
        };
        let below = |name: &str| S3Location {
            key: format!("{}{name}/", target.key),
            bucket: target.bucket.clone(),
        };
        let models = match &self.locked {
            None => listed
                .entries(Positional::Sources)?
                .into_iter()
                .map(|entry| MirrorModel {
                    source: (!self.check).then_some(entry.source),
                    also: entry.also,
                    selection: entry.selection,
                    expect_revision: entry.expect,
                    locked: None,
                    target: below(&entry.name),
                    name: entry.name,
                })
                .collect(),
            Some(file) => listed
                .of_lock(file)?
                .into_iter()
                .map(|model| MirrorModel {
                    source: (!self.check).then_some(model.source),
                    also: model.also,
                    selection: model.selection,
                    expect_revision: None,
                    locked: Some(Arc::new(model.content)),
                    target: below(&model.name),
                    name: model.name,
                })
                .collect(),
        };
        Ok(models)
    }
}

fn parse_target(text: &str) -> Result<S3Location, Error> {
    match SourceUri::parse(text) {
        Ok(SourceUri::S3(S3Location { bucket, key })) => {
            Ok(S3Location { bucket, key: directory(&key) })
        }
        Err(error) if text.starts_with("s3") => Err(error.into()),
        // What another SOURCE was probably meant to be does not help here.
        _ => Err(Error::Usage(
            Message::new(format!("`{}` is not s3://bucket/prefix/", SourceUri::shown(text)))
                .hint("name a prefix of a bucket"),
        )),
    }
}

/// `key` as what stands before the names in a directory.
fn directory(key: &str) -> String {
    if key.is_empty() || key.ends_with('/') { key.to_owned() } else { format!("{key}/") }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::{Cli, Command};
    use super::*;

    fn models(arguments: &[&str]) -> Result<Vec<MirrorModel>, Error> {
        let cli = Cli::try_parse_from([&["weightlift", "mirror"], arguments].concat());
        let Command::Mirror(args) = cli.expect("parses").command else { panic!("is mirror") };
        args.models()
    }

    #[test]
    fn what_is_copied_and_where_to_is_told_by_the_arguments() {
        let key = |arguments: &[&str]| models(arguments).expect("valid").remove(0).target.key;
        assert_eq!(key(&["hf://org/x", "s3://bucket/m/x/"]), "m/x/");
        assert_eq!(key(&["hf://org/x", "s3://bucket/m"]), "m/");
        assert_eq!(key(&["--check", "s3://bucket"]), "");
        for wrong in [
            &["s3://bucket/m/"][..],
            &["hf://org/x", "hf://org/y"],
            &["--check", "hf://org/x", "s3://bucket/m/"],
            &["--deep", "hf://org/x", "s3://bucket/m/"],
            &["s3://bucket/m", "s3://bucket/m/"],
            &["--only", "x", "hf://org/x", "s3://bucket/m/"],
        ] {
            let error = models(wrong).expect_err("is refused");
            assert_eq!(error.class().exit_code(), 2, "{wrong:?}");
        }
    }
}
