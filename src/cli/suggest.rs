//! A command line that clap refuses, as one sentence: what is wrong, and what to type. Knows the words of other tools.

use clap::CommandFactory;
use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::Cli;
use crate::model::{Message, SourceUri, text};

/// What other tools call a command of ours.
const COMMANDS: [(&str, &str); 16] = [
    ("download", "did you mean `fetch`?"),
    ("pull", "did you mean `fetch`?"),
    ("get", "did you mean `fetch`?"),
    ("cp", "did you mean `fetch`?"),
    ("sync", "did you mean `fetch`?"),
    ("snapshot-download", "did you mean `fetch`?"),
    ("lock", "did you mean `pin`?"),
    ("push", "did you mean `mirror`?"),
    ("upload", "did you mean `mirror`?"),
    ("ls", "did you mean `list`?"),
    ("status", "did you mean `list`?"),
    ("gc", "did you mean `prune`?"),
    ("clean", "did you mean `prune`?"),
    ("rm", "did you mean `prune`?"),
    ("check", "did you mean `verify` (a model on the volume) or `doctor` (the surroundings)?"),
    ("version", "did you mean `--version`?"),
];

/// What other tools call a flag of ours, and what is to be typed here.
const FLAGS: [(&str, &str); 28] = [
    ("--revision", "write the revision after SOURCE, as in hf://org/name@main"),
    ("--local-dir", "give the directory as DEST, after SOURCE"),
    ("--output-dir", "give the directory as DEST, after SOURCE"),
    ("--dir", "give the directory as DEST, after SOURCE"),
    ("--dest", "give the directory as DEST, after SOURCE"),
    ("--cache-dir", "use `--layout hf-cache --root DIR`"),
    ("--repo-type", "write the kind into SOURCE, as in hf://datasets/org/name"),
    ("--token", "set the variable HF_TOKEN; a token is never a flag"),
    ("--hf-token", "set the variable HF_TOKEN; a token is never a flag"),
    ("--endpoint", "set the variable HF_ENDPOINT, or use `--s3-endpoint` for S3"),
    ("--max-workers", "use `--connections`"),
    ("--num-workers", "use `--connections`"),
    ("--numworkers", "use `--connections`"),
    ("--concurrency", "use `--connections`"),
    ("--jobs", "use `--connections`"),
    ("--parallel", "use `--connections`"),
    ("--endpoint-url", "use `--s3-endpoint`"),
    ("--no-sign-request", "use `--s3-anonymous`"),
    ("--request-payer", "use `--s3-requester-pays`"),
    ("--region", "set the variable AWS_REGION"),
    ("--profile", "set the variable AWS_PROFILE"),
    ("--allow-patterns", "use `--include`"),
    ("--ignore-patterns", "use `--exclude`"),
    ("--force", "use `--replace` for another model at DEST, `--recheck` for damaged files"),
    ("--force-download", "use `--recheck`: it fetches damaged files again"),
    ("--resume", "leave it out; weightlift always resumes"),
    ("--json", "use `--output json`"),
    ("--timeout", "use `--deadline`"),
];

/// What `error` says of the arguments of `command`, once and in one line, and what to type.
pub fn mistake(error: &clap::Error, command: Option<&str>) -> Message {
    let argument = of_context(error, ContextKind::InvalidArg).unwrap_or_default();
    // `--chunk-size <SIZE>`
    let flag = argument.split(' ').next().unwrap_or_default();
    match error.kind() {
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            Message::new("no command is given").hint("choose one of the list")
        }
        ErrorKind::ValueValidation => of_value(error, flag, command),
        ErrorKind::InvalidValue => {
            let what = match of_context(error, ContextKind::InvalidValue) {
                Some(value) if !value.is_empty() => {
                    format!("{flag}: `{}` is not one of its values", shown(&value))
                }
                _ => format!("{flag} is given without a value"),
            };
            let values = all_of_context(error, ContextKind::ValidValue);
            Message::new(what).hint(match values.split_last() {
                Some((last, [])) => format!("use {last}"),
                Some((last, others)) => format!("use {} or {last}", others.join(", ")),
                None => format!("give it as {argument}"),
            })
        }
        ErrorKind::MissingRequiredArgument => {
            let missing = all_of_context(error, ContextKind::InvalidArg);
            Message::new("a required argument is missing")
                .hint(format!("give {}", missing.join(" ")))
        }
        ErrorKind::ArgumentConflict => {
            let others: Vec<String> = all_of_context(error, ContextKind::PriorArg)
                .iter()
                .map(|other| other.split(' ').next().unwrap_or_default().to_owned())
                .filter(|other| other != flag)
                .collect();
            match others.as_slice() {
                [] => Message::new(format!("{flag} is given more than once")).hint("give it once"),
                others => {
                    Message::new(format!("{flag} cannot be combined with {}", others.join(", ")))
                        .hint("leave one of them out")
                }
            }
        }
        ErrorKind::InvalidSubcommand => {
            let word = of_context(error, ContextKind::InvalidSubcommand).unwrap_or_default();
            Message::new(format!("unrecognized subcommand '{}'", shown(&word)))
                .hint(instead(error, command).unwrap_or_else(|| see_help(command)))
        }
        ErrorKind::UnknownArgument => {
            Message::new(format!("unexpected argument '{}' found", shown(&argument)))
                .hint(instead(error, command).unwrap_or_else(|| see_help(command)))
        }
        _ => {
            let rendered = error.render().to_string();
            let first = rendered.lines().next().unwrap_or_default();
            let first = first.split("; ").next().unwrap_or_default();
            Message::new(shown(first.trim_start_matches("error: "))).hint(see_help(command))
        }
    }
}

/// The parsers here say what to write; those of clap do not, nor do they repeat the value.
fn of_value(error: &clap::Error, flag: &str, command: Option<&str>) -> Message {
    let value = of_context(error, ContextKind::InvalidValue).unwrap_or_default();
    let source = std::error::Error::source(error);
    match source.and_then(|source| source.downcast_ref::<Message>()) {
        // Its sentence repeats it.
        Some(message) if may_be_secret(&value) => Message {
            what: format!("{flag}: `{}` is not a value that it takes", shown(&value)),
            hint: message.hint.clone(),
        },
        Some(message) => message.clone().after(format!("{flag}: ")),
        None => {
            let why = source.map(ToString::to_string).unwrap_or_default();
            let what = match why.starts_with(&value) {
                // As `FromStr` of a number says it.
                false if why.starts_with("invalid digit") => {
                    format!("{flag}: `{}` is not a number", shown(&value))
                }
                true => format!("{flag}: {}", shown(&why)),
                false => format!("{flag}: `{}`: {}", shown(&value), shown(&why)),
            };
            Message::new(what).hint(see_help(command))
        }
    }
}

/// Whether a token, a key or a password was typed where it does not belong.
fn may_be_secret(text: &str) -> bool {
    text.contains("-----BEGIN")
        || ["hf_", "AKIA", "ghp_", "glpat-"].iter().any(|start| text.contains(start))
        || text.contains("://") && text.contains(['@', '?'])
}

/// What was typed, as a message may show it: no control characters, and nothing that may be a secret.
fn shown(text: &str) -> String {
    match may_be_secret(text) {
        true if text.contains("://") => SourceUri::shown(text),
        true => "…".to_owned(),
        false => text::inert(text, 200),
    }
}

/// Where the flags and values of `command` are described.
fn see_help(command: Option<&str>) -> String {
    match command {
        Some(command) => format!("run `weightlift {command} --help`"),
        None => "run `weightlift --help`".to_owned(),
    }
}

/// What to type in its place: what another tool's word is here, or else what clap finds near.
fn instead(error: &clap::Error, command: Option<&str>) -> Option<String> {
    let (wrong, near, table): (_, _, &[(&str, &str)]) = match error.kind() {
        ErrorKind::InvalidSubcommand => {
            (ContextKind::InvalidSubcommand, ContextKind::SuggestedSubcommand, &COMMANDS)
        }
        ErrorKind::UnknownArgument => (ContextKind::InvalidArg, ContextKind::SuggestedArg, &FLAGS),
        _ => return None,
    };
    let word = of_context(error, wrong)?;
    let word = word.replace('_', "-");
    let is_flag = error.kind() == ErrorKind::UnknownArgument;
    let fits = |hint: &str| !is_flag || fits(hint, command);
    let known = table.iter().find(|(other, hint)| *other == word && fits(hint));
    let near = || of_context(error, near).map(|near| format!("did you mean `{near}`?"));
    known.map(|(_, hint)| (*hint).to_owned()).or_else(near)
}

/// Whether `command` has each flag that `hint` names, and a SOURCE or DEST if it speaks of one.
fn fits(hint: &str, command: Option<&str>) -> bool {
    let cli = Cli::command();
    let Some(command) = command.and_then(|name| cli.find_subcommand(name)) else { return true };
    let global = cli.get_arguments().filter(|argument| argument.is_global_set());
    let all: Vec<&clap::Arg> = command.get_arguments().chain(global).collect();
    let has_flag = |flag: &str| all.iter().any(|it| it.get_long() == Some(flag));
    let flags = hint.split(['`', ' ', ':']).filter_map(|word| word.strip_prefix("--"));
    let names = |word: &str| {
        let has = |it: &clap::Arg| {
            it.get_value_names().is_some_and(|names| names.iter().any(|name| name.contains(word)))
        };
        !hint.contains(word) || all.iter().any(|it| it.is_positional() && has(it))
    };
    flags.into_iter().all(has_flag) && names("SOURCE") && names("DEST")
}

fn of_context(error: &clap::Error, kind: ContextKind) -> Option<String> {
    // The nearest is the last.
    all_of_context(error, kind).pop()
}

fn all_of_context(error: &clap::Error, kind: ContextKind) -> Vec<String> {
    match error.get(kind) {
        Some(ContextValue::String(text)) => vec![text.clone()],
        Some(ContextValue::Strings(texts)) => texts.clone(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::super::Cli;
    use super::*;

    #[test]
    fn each_hint_names_commands_and_flags_that_there_are() {
        let program = Cli::command();
        let fetch = program.find_subcommand("fetch").expect("is there");
        for (word, hint) in COMMANDS.iter().chain(&FLAGS) {
            for named in hint.split('`').skip(1).step_by(2) {
                let flag = named.split(' ').next().and_then(|named| named.strip_prefix("--"));
                let is_there = match flag {
                    Some("version") => true,
                    Some(flag) => {
                        let mut flags = fetch.get_arguments().chain(program.get_arguments());
                        flags.any(|it| it.get_long() == Some(flag))
                    }
                    None => program.find_subcommand(named).is_some(),
                };
                assert!(is_there, "{word}: {named}");
            }
            let arguments = match word.strip_prefix("--") {
                Some(_) => vec!["weightlift", "fetch", "hf://org/name", word, "x"],
                None => vec!["weightlift", word],
            };
            let error = Cli::try_parse_from(arguments).expect_err(word);
            assert_eq!(super::instead(&error, Some("fetch")).as_deref(), Some(*hint), "{word}");
        }
    }
}
