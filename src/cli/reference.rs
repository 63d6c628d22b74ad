//! The reference of the command line, docs/cli.md, as Markdown: each command with its examples and flags, of a flag
//! its variable, default and values.

use std::fmt::Write as _;

use clap::{Arg, Command};

/// What the page begins with.
const HEAD: &str = "\
# Command line

Every command, flag, variable, default and value. `weightlift COMMAND --help` prints the same. This page is generated:
`weightlift generate reference > docs/cli.md`, and a test compares it with the program.

Each flag can be set by its variable. The flag comes first. A variable that is empty counts as not set.
[environment.md](environment.md) has all variables, [exit-codes.md](exit-codes.md) the exit codes.

";

/// What the page ends with.
const TAIL: &str = "
## Completions and man pages

The archive of a release holds both in `completions/` and `man/`. The program writes them too:

```sh
weightlift generate completions bash > ~/.local/share/bash-completion/completions/weightlift
weightlift generate completions zsh > ~/.zfunc/_weightlift # ~/.zshrc: fpath+=~/.zfunc; autoload -U compinit; compinit
weightlift generate completions fish > ~/.config/fish/completions/weightlift.fish
weightlift generate man ~/.local/share/man/man1            # then: man weightlift-fetch
```

`elvish` and `powershell` are there as well.
";

/// The page on `program`, which is built.
pub fn markdown(program: &Command) -> String {
    let mut page = HEAD.to_owned();
    let commands =
        || program.get_subcommands().filter(|it| !it.is_hide_set() && it.get_name() != "help");
    page.push_str("| command | does |\n|---|---|\n");
    for command in commands() {
        let (name, about) = (command.get_name(), about(command));
        let _ = writeln!(page, "| [`weightlift {name}`](#weightlift-{name}) | {about} |");
    }
    for command in commands() {
        let _ = write!(page, "\n## weightlift {}\n\n{}.\n", command.get_name(), about(command));
        let usage = command.clone().render_usage().to_string();
        block(usage.strip_prefix("Usage: ").unwrap_or(&usage), &mut page);
        if let Some(examples) = command.get_before_help() {
            let examples = examples.to_string();
            page.push_str("\nExamples:\n");
            block(&examples.replace("Examples:\n  ", "").replace("\n  ", "\n"), &mut page);
        }
        flags(command.get_positionals(), &mut page);
        let own = |it: &&Arg| !it.is_positional() && !it.is_global_set();
        flags(command.get_arguments().filter(own), &mut page);
        if let Some(more) = command.get_after_long_help() {
            block(&more.to_string(), &mut page);
        }
    }
    page.push_str("\n## Flags of every command\n");
    flags(program.get_arguments().filter(|it| it.is_global_set()), &mut page);
    page.push_str(TAIL);
    page
}

fn about(command: &Command) -> String {
    command.get_about().map(ToString::to_string).unwrap_or_default()
}

/// `text` as it is.
fn block(text: &str, page: &mut String) {
    let _ = write!(page, "\n```text\n{}\n```\n", text.trim_end());
}

/// A list for each heading.
fn flags<'a>(flags: impl Iterator<Item = &'a Arg>, page: &mut String) {
    let flags: Vec<&Arg> = flags.filter(|it| !it.is_hide_set()).collect();
    let mut headings = Vec::new();
    for flag in &flags {
        let heading = flag.get_help_heading().unwrap_or("Arguments");
        if !headings.contains(&heading) {
            headings.push(heading);
        }
    }
    for heading in headings {
        let _ = write!(page, "\n**{heading}**\n\n");
        let of_heading = |it: &&&Arg| it.get_help_heading().unwrap_or("Arguments") == heading;
        flags.iter().filter(of_heading).for_each(|it| flag(it, page));
    }
}

fn flag(flag: &Arg, page: &mut String) {
    let help = flag.get_long_help().or(flag.get_help()).map(ToString::to_string);
    let help = help.unwrap_or_default();
    let mut paragraphs = help.split("\n\n").map(|text| text.trim().trim_end_matches('.'));
    let name = flag.to_string().replace(['<', '>'], "");
    let short = flag.get_short().map(|short| format!("`-{short}`, ")).unwrap_or_default();
    let _ = write!(page, "- {short}`{name}`: {}.", paragraphs.next().unwrap_or_default());
    paragraphs.for_each(|text| {
        let _ = write!(page, " {}.", text.replace('\n', " "));
    });
    let aliases = flag.get_visible_aliases().unwrap_or_default();
    for alias in aliases {
        let _ = write!(page, " Also `--{alias}`.");
    }
    // Flags that are on or off have them too.
    let takes_value = flag.get_action().takes_values();
    let values = flag.get_possible_values();
    if takes_value && values.iter().any(|it| it.get_help().is_some()) {
        let told = values.iter().map(|it| match it.get_help() {
            Some(help) => format!("`{}` ({help})", it.get_name()),
            None => format!("`{}`", it.get_name()),
        });
        let _ = write!(page, " Values: {}.", told.collect::<Vec<_>>().join(", "));
    }
    if takes_value && let [default] = flag.get_default_values() {
        let _ = write!(page, " Default: `{}`.", default.to_string_lossy());
    }
    if let Some(variable) = flag.get_env() {
        let _ = write!(page, " Variable: `{}`.", variable.to_string_lossy());
    }
    page.push('\n');
}
