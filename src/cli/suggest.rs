//! A command line that clap refuses, as one sentence: what is wrong, and what to type. Knows the words of other tools.

use clap::error::{ContextKind, ContextValue, ErrorKind};

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

/// What `error` says, with a hint, and the lines that explain it further.
pub fn mistake(error: &clap::Error) -> (String, String) {
    let rendered = error.render().to_string();
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        return ("no command is given; choose one of the list".into(), String::new());
    }
    let (first, rest) = rendered.split_once('\n').unwrap_or((&rendered, ""));
    let first = first.trim_start_matches("error: ");
    let is_tip = |line: &&str| line.trim_start().starts_with("tip:");
    let rest: Vec<&str> = rest.lines().filter(|line| !is_tip(line)).collect();
    // What is missing stands in lines of its own, up to an empty one.
    let listed = rest.iter().take_while(|line| !line.trim().is_empty()).map(|line| line.trim());
    let what: Vec<&str> = [first].into_iter().chain(listed).collect();
    let hint = hint(error).map(|hint| format!("; {hint}")).unwrap_or_default();
    let message = what.join(" ") + &hint;
    (message, rest.join("\n").trim().to_owned())
}

/// What to type in its place: what another tool's word is here, or else what clap finds near.
fn hint(error: &clap::Error) -> Option<String> {
    let (wrong, near, table): (_, _, &[(&str, &str)]) = match error.kind() {
        ErrorKind::InvalidSubcommand => {
            (ContextKind::InvalidSubcommand, ContextKind::SuggestedSubcommand, &COMMANDS)
        }
        ErrorKind::UnknownArgument => (ContextKind::InvalidArg, ContextKind::SuggestedArg, &FLAGS),
        _ => return None,
    };
    let word = of_context(error, wrong)?;
    let word = word.replace('_', "-");
    let known = table.iter().find(|(other, _)| *other == word);
    let near = || of_context(error, near).map(|near| format!("did you mean `{near}`?"));
    known.map(|(_, hint)| (*hint).to_owned()).or_else(near)
}

fn of_context(error: &clap::Error, kind: ContextKind) -> Option<String> {
    match error.get(kind)? {
        ContextValue::String(text) => Some(text.clone()),
        // The nearest is the last.
        ContextValue::Strings(texts) => texts.last().cloned(),
        _ => None,
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
            assert_eq!(super::hint(&error).as_deref(), Some(*hint), "{word}");
        }
    }
}
