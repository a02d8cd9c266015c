//! The command line as a whole; each command's own options stand in its module.

use crate::component::{self, AgentTable, ComponentArgs, GatewayTable, RlpTable};
use crate::exit;
use crate::output::ColorArg;
use crate::settings::Flags;
use clap::{Parser, Subcommand};
use doppler::DopplerArgs;
use traffic_controller::TrafficControllerArgs;

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
    #[command(after_help = component::AGENT_EXAMPLES)]
    Agent(Box<ComponentArgs<Flags<AgentTable>>>),
    /// Run a doppler: keeps recent envelopes in memory, serves them to readers
    #[command(after_help = component::DOPPLER_EXAMPLES)]
    Doppler(Box<ComponentArgs<DopplerArgs>>),
    /// Run a traffic controller: WebSockets for people and nozzles
    #[command(after_help = component::TRAFFIC_CONTROLLER_EXAMPLES)]
    TrafficController(Box<ComponentArgs<TrafficControllerArgs>>),
    /// Run a reverse log proxy: v2 envelopes of all dopplers over gRPC, for nozzles and gateways
    #[command(after_help = component::RLP_EXAMPLES)]
    Rlp(Box<ComponentArgs<Flags<RlpTable>>>),
    /// Run a reverse log proxy's gateway: v2 envelopes as JSON over HTTP
    #[command(after_help = component::GATEWAY_EXAMPLES)]
    RlpGateway(Box<ComponentArgs<Flags<GatewayTable>>>),
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
}
