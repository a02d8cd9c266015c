//! `nozzle example` and `nozzle list`: what there is, and how it is written.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use serde::Serialize;

use super::kinds;
use crate::exit::{Coded, Exit};
use crate::output;

/// Options of `nozzle example`.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "Example:\n  loggregator nozzle example file > lines.toml && loggregator nozzle run lines.toml"
)]
pub struct ExampleArgs {
    /// The kind of destination; see `loggregator nozzle list`
    #[arg(value_name = "KIND")]
    kind: String,
}

/// Options of `nozzle list`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example:\n  loggregator nozzle list")]
pub struct ListArgs {
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// What stands before the destination in an example: a file that runs as it stands beside an `up`.
const BEFORE: &str = r#"# Run it with `loggregator nozzle run FILE`, check it with `loggregator nozzle check FILE`.

[nozzle]
name = "NAME"                      # names its subscription, its metrics and its state
admin_addr = "127.0.0.1:14840"     # metrics, health, ledger; needed for `nozzle tap` and `status`

# Where envelopes come from. Without this section: the `loggregator up` that runs on this machine.
# [intake.rlp]
# addrs = ["reverselogproxy.service.internal:8082"]
# ca_file = "loggregator-ca.crt"
# cert_file = "nozzle.crt"
# key_file = "nozzle.key"

# What stands between: on disk it survives a restart, and is kept while a destination is away.
# [buffer.disk]
# path = "/var/lib/NAME"
# max_bytes = "4GiB"

"#;

/// Prints a complete file.
///
/// # Errors
/// When there is no such kind.
pub fn run(args: &ExampleArgs) -> Result<ExitCode> {
    let kinds = kinds();
    let Some(kind) = kinds.get(&args.kind) else {
        let known: Vec<&str> = kinds.iter().map(|kind| kind.name()).collect();
        return Err(Coded::error(
            Exit::Usage,
            format!("`{}` is none of the kinds {}", args.kind, known.join(", ")),
        ));
    };
    let mut text = BEFORE.replace("NAME", &format!("{}-nozzle", kind.name()));
    text.push_str(kind.example());
    if !text.ends_with('\n') {
        text.push('\n');
    }
    output::write(text.as_bytes())?;
    Ok(Exit::Done.into())
}

#[derive(Debug, Serialize)]
struct Row {
    name: &'static str,
    about: &'static str,
}

/// Prints the kinds.
///
/// # Errors
/// When nobody reads.
pub fn list(args: &ListArgs) -> Result<ExitCode> {
    if args.json {
        let rows: Vec<Row> = kinds()
            .iter()
            .map(|kind| Row {
                name: kind.name(),
                about: kind.about(),
            })
            .collect();
        let mut text = serde_json::to_vec_pretty(&rows)?;
        text.push(b'\n');
        output::write(&text)?;
    } else {
        output::write(table().as_bytes())?;
    }
    Ok(Exit::Done.into())
}

/// Where a line of help ends, so that nobody else breaks it.
const WIDTH: usize = 96;

/// The kinds: names, and behind each what it does.
pub fn table() -> String {
    let mut text = String::new();
    for kind in kinds().iter() {
        let mut line = format!("  {:<11}", kind.name());
        for word in kind.about().split_whitespace() {
            if line.len() + 1 + word.len() > WIDTH {
                text.push_str(&line);
                text.push('\n');
                line = " ".repeat(13);
            }
            line.push(' ');
            line.push_str(word);
        }
        text.push_str(&line);
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use loggregator_nozzle::config::NozzleConfig;

    use super::*;

    #[test]
    fn every_example_can_be_run_as_it_stands() {
        for kind in kinds().iter() {
            let text = BEFORE.to_owned() + kind.example();
            let file = format!("{}.toml", kind.name());
            check(&file, &text);
            // With what is commented out before the destination too.
            let before: Vec<&str> = BEFORE
                .lines()
                .map(|line| match line.strip_prefix("# ") {
                    Some(key) if key.starts_with('[') || key.contains(" = ") => key,
                    _ => line,
                })
                .collect();
            let all = format!("{}\n{}", before.join("\n"), kind.example());
            check(&file, &all);
        }
    }

    /// All that may be missing are files that are not of this machine.
    fn check(file: &str, text: &str) {
        if let Err(errors) = NozzleConfig::load(Path::new(file), text, [], &kinds()) {
            let all = &errors.errors;
            let missing = all.iter().all(|it| it.message.contains("No such file"));
            assert!(missing, "{errors}\n{text}");
        }
    }
}
