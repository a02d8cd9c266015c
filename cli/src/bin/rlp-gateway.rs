//! `rlp-gateway`: a reverse log proxy's HTTP gateway, configured as the platform's Go program is.

fn main() -> std::process::ExitCode {
    loggregator_cli::drop_in::rlp_gateway()
}
