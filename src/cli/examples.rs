//! What stands first in the help of each command: command lines to copy. A test has each of them parsed.

pub const WEIGHTLIFT: &str = "\
Examples:
  weightlift fetch hf://org/name           fetch a model to /data/models/name
  weightlift plan hf://org/name            tell what that takes; write nothing
  weightlift list                          list the models on the volume
  weightlift verify /data/models/name      hash every byte again
  weightlift doctor hf://org/name          find out why a fetch fails";

pub const FETCH: &str = "\
Examples:
  weightlift fetch hf://org/name           to /data/models/name
  weightlift fetch hf://org/name@v1.0 llama-3-8b --link /model/current
  weightlift fetch s3://bucket/prefix/ llama-3-8b --root /mnt/models
  weightlift fetch hf://org/name --include 'model-q4*.gguf'
  weightlift fetch --locked models.lock    exactly what `pin` wrote down";

pub const PLAN: &str = "\
Examples:
  weightlift plan hf://org/name            files, sizes, free space
  weightlift plan hf://org/name --all      the same with every file of the repo
  weightlift plan --locked models.lock --output json";

pub const PIN: &str = "\
Examples:
  weightlift pin --models models.yaml               write models.lock
  weightlift pin --models models.yaml --check       exit 16 if a source changed
  weightlift pin --models models.yaml --upgrade llama-3-8b
  weightlift pin hf://org/name llama-3-8b           add one model to models.lock";

pub const MIRROR: &str = "\
Examples:
  weightlift mirror hf://org/name s3://bucket/prefix/
  weightlift mirror --models models.yaml s3://bucket/prefix/   to prefix/NAME/
  weightlift mirror --check s3://bucket/prefix/                compare the sizes
  weightlift mirror --check --deep s3://bucket/prefix/         read every byte";

pub const VERIFY: &str = "\
Examples:
  weightlift verify /data/models/llama-3-8b
  weightlift verify /data/models/llama-3-8b /data/models/bge-m3 --output json
  weightlift verify /data/models/llama-3-8b --deadline 30m";

pub const WAIT: &str = "\
Examples:
  weightlift wait /data/models/llama-3-8b
  weightlift wait /data/models/llama-3-8b --timeout 30m --link /model/current
  weightlift wait /data/models/a /data/models/b";

pub const LIST: &str = "\
Examples:
  weightlift list                          models below /data/models
  weightlift list --root /mnt/models
  weightlift list --output json            one JSON object for each model";

pub const PRUNE: &str = "\
Examples:
  weightlift prune                         tell what would be removed
  weightlift prune --yes                   remove it
  weightlift prune --older-than 7d --keep-revisions 0 --yes
  weightlift prune --until-free 500GB --yes
  weightlift prune --models models.yaml    also models not in the file";

pub const DOCTOR: &str = "\
Examples:
  weightlift doctor                        container, volume, the Hub
  weightlift doctor hf://org/name          list it, and read a part
  weightlift doctor s3://bucket/llama/ --root /data/models --lock kubernetes
  weightlift doctor --models models.yaml --output json";

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::super::Cli;

    /// The command lines in `text`: what stands before two spaces.
    fn lines(text: &str) -> Vec<&str> {
        let lines = text.lines().filter(|line| line.starts_with("  weightlift "));
        lines.map(|line| line.trim_start().split("  ").next().unwrap_or_default()).collect()
    }

    #[test]
    fn each_example_can_be_typed_and_each_command_has_three_to_five() {
        let program = Cli::command();
        let commands = program.get_subcommands().filter(|it| !it.is_hide_set());
        for command in [&program].into_iter().chain(commands) {
            let text = command.get_before_help().map(ToString::to_string).unwrap_or_default();
            let lines = lines(&text);
            let name = command.get_name();
            assert!((3..=5).contains(&lines.len()), "{name}: {text}");
            for line in lines {
                let words = line.split(' ').map(|word| word.trim_matches('\''));
                let parsed = Cli::try_parse_from(words);
                let parsed = parsed.unwrap_or_else(|error| panic!("{line}: {error}"));
                assert!(parsed.command.name() == name || name == "weightlift", "{line}");
            }
            assert!(text.lines().all(|line| line.len() <= 80), "{name}: {text}");
        }
    }
}
