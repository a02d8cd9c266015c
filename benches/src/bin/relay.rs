//! The floor: a relay over mutual TLS and HTTP/2 that looks at nothing and drops nothing. See the library's `relay`.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context;
use clap::Parser;
use loggregator_benches::certs::{self, Files};
use loggregator_benches::http2::Windows;
use loggregator_benches::relay::{self, Tls};
use loggregator_net::{Profile, ServerTls, TlsFiles};

#[derive(Parser)]
struct Args {
    /// Address to listen on.
    #[arg(long)]
    listen: SocketAddr,
    /// PEM file of the authority that clients' certificates come from.
    #[arg(long)]
    ca: PathBuf,
    /// PEM file of the server's certificate.
    #[arg(long)]
    cert: PathBuf,
    /// PEM file of its key.
    #[arg(long)]
    key: PathBuf,
    /// TLS stream to run over.
    #[arg(long, value_enum, default_value = "plain")]
    tls: Stream,
    /// Bytes that one emitting stream may have in flight.
    #[arg(long, default_value_t = 1 << 20)]
    stream_window: u32,
    /// Bytes that one connection may have in flight.
    #[arg(long, default_value_t = 4 << 20)]
    connection_window: u32,
    /// Largest DATA frame announced to emitters.
    #[arg(long, default_value_t = 16 << 10)]
    frame: u32,
    /// Worker threads; as many as there are cores when 0.
    #[arg(long, default_value_t = 0)]
    threads: usize,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Stream {
    /// rustls as anybody would drive it; what figures are compared with.
    Plain,
    /// The product's own stream.
    Product,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    if args.threads > 0 {
        runtime.worker_threads(args.threads);
    }
    runtime.enable_all().build()?.block_on(async {
        let tls = match args.tls {
            Stream::Plain => Tls::Plain(certs::server(&Files {
                ca: args.ca,
                cert: args.cert,
                key: args.key,
            })?),
            Stream::Product => {
                let files = TlsFiles {
                    ca: args.ca,
                    cert: args.cert,
                    key: args.key,
                };
                Tls::Product(ServerTls::mutual(&files, Profile::Grpc)?)
            }
        };
        let listener = tokio::net::TcpListener::bind(args.listen)
            .await
            .with_context(|| args.listen.to_string())?;
        let windows = Windows {
            stream: args.stream_window,
            connection: args.connection_window,
            frame: args.frame,
        };
        relay::serve(listener, tls, windows).await;
        Ok(())
    })
}
