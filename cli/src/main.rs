//! `loggregator`: see [`loggregator_cli`].

fn main() -> std::process::ExitCode {
    loggregator_cli::loggregator()
}
