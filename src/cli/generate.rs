//! `weightlift generate`, a hidden command: what packages and docs have of the command line, written from its flags.

use std::path::{Path, PathBuf};

use clap::{Args, Command, CommandFactory, Subcommand, ValueHint};
use clap_complete::Shell;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, roman};

use super::{Cli, reference};
use crate::Error;

#[derive(Debug, Args)]
pub struct GenerateArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Print the completion script of a shell
    Completions { shell: Shell },
    /// Write one man page for each command into DIR
    Man {
        #[arg(value_hint = ValueHint::DirPath)]
        dir: PathBuf,
    },
    /// Print the reference of the command line, docs/cli.md
    Reference,
}

/// What `generate` has made.
pub enum Generated<'a> {
    /// For standard output.
    Text(String),
    /// Files, by name, for a directory.
    Files(&'a Path, Vec<(String, Vec<u8>)>),
}

impl GenerateArgs {
    pub fn generated(&self) -> Result<Generated<'_>, Error> {
        match &self.what {
            What::Completions { shell } => {
                let mut script = Vec::new();
                let mut program = shown(&Cli::command());
                clap_complete::generate(*shell, &mut program, "weightlift", &mut script);
                Ok(Generated::Text(String::from_utf8_lossy(&script).into_owned()))
            }
            What::Man { dir } => Ok(Generated::Files(dir, pages()?)),
            What::Reference => {
                let mut program = Cli::command();
                program.build();
                Ok(Generated::Text(reference::markdown(&program)))
            }
        }
    }
}

/// `command` without what help does not show: clap_complete offers everything.
fn shown(command: &Command) -> Command {
    let arguments = command.get_arguments().filter(|it| !it.is_hide_set()).cloned();
    let commands = command.get_subcommands().filter(|it| !it.is_hide_set()).map(shown);
    let mut shown = Command::new(command.get_name().to_owned()).disable_help_flag(true);
    if let Some(version) = command.get_version() {
        shown = shown.version(version.to_owned());
    }
    if let Some(about) = command.get_about() {
        shown = shown.about(about.clone());
    }
    shown.args(arguments).subcommands(commands)
}

/// The man pages, by the names of their files.
fn pages() -> Result<Vec<(String, Vec<u8>)>, Error> {
    let mut program = Cli::command().disable_help_subcommand(true);
    program.build();
    let commands = program.get_subcommands().filter(|it| !it.is_hide_set());
    let all = [&program].into_iter().chain(commands);
    all.map(|command| page(command).map_err(|error| Error::Bug(error.to_string()))).collect()
}

fn page(command: &Command) -> std::io::Result<(String, Vec<u8>)> {
    let is_program = command.has_subcommands();
    let man = Man::new(command.clone());
    let title = command.get_display_name().unwrap_or(command.get_name());
    // The same commit gives the same pages, so they have no date. clap_mangen leaves the field out, and not empty.
    let head =
        format!(".TH {title} 1 \"\" \"weightlift {}\" weightlift\n", env!("CARGO_PKG_VERSION"));
    let mut page = head.into_bytes();
    man.render_name_section(&mut page)?;
    // clap_mangen's own has all flags, one after the other.
    let usage = command.clone().render_usage().to_string();
    let usage = usage.strip_prefix("Usage: ").unwrap_or(&usage).to_owned();
    section("SYNOPSIS", &usage, &mut page)?;
    if let Some(examples) = command.get_before_help() {
        let examples = examples.to_string();
        let lines = examples.split_once('\n').map_or("", |(_, lines)| lines);
        section("EXAMPLES", lines, &mut page)?;
    }
    if is_program {
        man.render_subcommands_section(&mut page)?;
    }
    man.render_options_section(&mut page)?;
    if let Some(more) = command.get_after_long_help() {
        section(if is_program { "EXIT STATUS" } else { "NOTES" }, &more.to_string(), &mut page)?;
    }
    Ok((man.get_filename(), page))
}

/// A section of lines that stay as they are.
fn section(title: &str, lines: &str, page: &mut Vec<u8>) -> std::io::Result<()> {
    let mut roff = Roff::default();
    roff.control("SH", [title]).control("nf", []);
    for line in lines.lines() {
        roff.text([roman(line)]);
    }
    roff.control("fi", []);
    roff.to_writer(page)
}
