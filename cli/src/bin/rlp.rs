//! `rlp`: a reverse log proxy, configured as the platform's Go program is.

fn main() -> std::process::ExitCode {
    loggregator_cli::drop_in::rlp()
}
