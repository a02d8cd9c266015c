//! The command line as a whole; each command's own options stand in its module.

use crate::component::{Agent, ComponentArgs, Doppler, Gateway, Rlp, TrafficController};
use crate::exit;
use crate::output::ColorArg;
use clap::{Parser, Subcommand};

/// A Loggregator-compatible firehose: logs and metrics of many emitters, delivered to many readers.
#[derive(Debug, Parser)]
#[command(
    name = "loggregator",
    version,
    arg_required_else_help = true,
    propagate_version = true,
    disable_help_subcommand = true,
    after_help = EXAMPLES,
    after_long_help = format!("{EXAMPLES}\n\n{}", exit::TABLE),
    max_term_width = 110
)]
pub struct Cli {
    /// When to use colours
    #[arg(
        long,
        global = true,
        value_enum,
        value_name = "WHEN",
        default_value_t,
        hide_possible_values = true,
        help_heading = "Display"
    )]
    pub color: ColorArg,
    #[command(subcommand)]
    pub command: Command,
}

const EXAMPLES: &str = "\
Start here:
  loggregator up --demo                            the whole pipeline, with example apps
  loggregator tail web-shop                        in a second terminal: what one app says
  loggregator firehose --kind log                  everything that is logged
  echo hello | loggregator emit -s my-app --stdin  send something
  loggregator status                               what went in, what came out, what was lost";

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start the whole pipeline in one process: agent, dopplers, traffic controller, reverse log proxy, gateway
    Up(Box<crate::up::UpArgs>),
    /// Show what sources say, live
    Tail(crate::tail::TailArgs),
    /// Show everything from every source, live
    Firehose(crate::tail::FirehoseArgs),
    /// Send log lines, counters, gauges, timers or events
    Emit(crate::emit::EmitArgs),
    /// Show what each component received, delivered and dropped
    Status(crate::status::StatusArgs),
    /// Run an agent: takes envelopes, lines and syslog on this machine, sends them to dopplers
    Agent(Box<ComponentArgs<Agent>>),
    /// Run a doppler: keeps recent envelopes in memory, serves them to readers
    Doppler(Box<ComponentArgs<Doppler>>),
    /// Run a traffic controller: WebSockets for people and nozzles
    TrafficController(Box<ComponentArgs<TrafficController>>),
    /// Run a reverse log proxy: v2 envelopes of all dopplers over gRPC, for nozzles and gateways
    Rlp(Box<ComponentArgs<Rlp>>),
    /// Run a reverse log proxy's gateway: v2 envelopes as JSON over HTTP
    RlpGateway(Box<ComponentArgs<Gateway>>),
    /// Take logs and metrics to files, syslog, Kafka or Prometheus, as a file says
    Nozzle(crate::nozzle::NozzleArgs),
    /// Print a completion script for a shell
    #[command(
        after_help = "Example:\n  loggregator completions bash > ~/.local/share/bash-completion/completions/loggregator"
    )]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::component::Component as _;
    use clap::CommandFactory as _;

    #[test]
    fn the_tree_is_sound_and_every_command_shows_examples() {
        let mut command = Cli::command();
        command.build();
        command.clone().debug_assert();
        for sub in command.get_subcommands() {
            let help = sub.clone().render_long_help().to_string();
            assert!(
                help.contains("Example"),
                "{} has no example",
                sub.get_name()
            );
        }
    }

    #[test]
    fn the_examples_of_components_can_be_typed_as_they_stand() {
        for example in [
            Agent::EXAMPLE,
            Doppler::EXAMPLE,
            TrafficController::EXAMPLE,
            Rlp::EXAMPLE,
            Gateway::EXAMPLE,
        ] {
            let line = example.trim_start_matches("Example:").replace("\\\n", " ");
            if let Err(error) = Cli::try_parse_from(line.split_whitespace()) {
                panic!("{line}: {error}");
            }
            // A line that a narrow terminal breaks cannot be copied.
            assert!(example.lines().all(|line| line.len() < 80), "{example}");
        }
    }
}
