//! The compliance suite against a receiver over TCP.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use common::rfc5424::unframe;
use loggregator_nozzle::compliance::{self, Behaviour, Peer};
use loggregator_nozzle::{Kinds, Rendered};
use loggregator_nozzle_syslog::SyslogKind;
use parking_lot::Mutex;
use tempfile::TempDir;
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// A receiver. Syslog has no answers: it can be there, be away, and close connections.
struct Receiver {
    addr: SocketAddr,
    state: Arc<State>,
    stop: Mutex<CancellationToken>,
    scratch: TempDir,
}

#[derive(Default)]
struct State {
    taken: Mutex<Vec<Rendered>>,
    /// Connections that are closed at once.
    refuse: Mutex<u32>,
}

impl Receiver {
    async fn start() -> Receiver {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let receiver = Receiver {
            addr: listener.local_addr().unwrap(),
            state: Arc::default(),
            stop: Mutex::new(CancellationToken::new()),
            scratch: tempfile::tempdir().unwrap(),
        };
        receiver.serve(listener);
        receiver
    }

    fn serve(&self, listener: TcpListener) {
        let stop = CancellationToken::new();
        *self.stop.lock() = stop.clone();
        let state = Arc::clone(&self.state);
        tokio::spawn(async move {
            // Its connections end with it.
            let mut connections = JoinSet::new();
            let accepting = async {
                loop {
                    let (stream, _) = listener.accept().await.unwrap();
                    let mut refuse = state.refuse.lock();
                    if *refuse > 0 {
                        *refuse -= 1;
                    } else {
                        connections.spawn(read(stream, Arc::clone(&state)));
                    }
                }
            };
            stop.run_until_cancelled(accepting).await;
        });
    }
}

async fn read(mut stream: TcpStream, state: Arc<State>) {
    let mut bytes = Vec::new();
    while let Ok(1..) = stream.read_buf(&mut bytes).await {
        let (messages, rest) = unframe(&bytes).unwrap();
        let message = |message: &&[u8]| Rendered {
            fields: Vec::new(),
            body: message.to_vec().into(),
        };
        state.taken.lock().extend(messages.iter().map(message));
        bytes = rest.to_vec();
    }
}

impl Peer for Receiver {
    fn config(&self) -> String {
        format!("url = \"syslog://{}\"", self.addr)
    }

    fn scratch(&self) -> PathBuf {
        self.scratch.path().to_owned()
    }

    fn can(&self, how: &Behaviour) -> bool {
        matches!(
            how,
            Behaviour::Healthy | Behaviour::Away | Behaviour::Fail(_)
        )
    }

    async fn behave(&self, how: Behaviour) {
        match how {
            Behaviour::Away => self.stop.lock().cancel(),
            Behaviour::Fail(n) => *self.state.refuse.lock() = n,
            _ => self.serve(TcpListener::bind(self.addr).await.unwrap()),
        }
    }

    async fn received(&self) -> Vec<Rendered> {
        self.state.taken.lock().clone()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_complies() {
    let kinds = Kinds::new().with(SyslogKind);
    let left_out = compliance::run(&kinds, "syslog", Receiver::start).await;
    // What these need an answer for is in the tests of streams and in those with real receivers.
    assert_eq!(left_out, ["partial", "acknowledged", "poisoned", "restart"]);
}
