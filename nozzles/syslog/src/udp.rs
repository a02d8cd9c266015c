//! The destination for UDP: a datagram per message (RFC 5426).

use std::io;
use std::sync::Arc;

use loggregator_nozzle::{Batch, Context, Delivery, Destination, Outcome, Reason};
use tokio::net::UdpSocket;
use tokio::sync::Mutex;

use crate::config::{Endpoints, Settings};
use crate::counts::Counts;
use crate::endpoint::Endpoint;
use crate::format::{Formatter, Refusal};
use crate::page::{Page, Prefix};

pub(crate) struct Udp {
    settings: Settings,
    counts: Arc<Counts>,
    state: Mutex<State>,
}

struct State {
    formatter: Formatter,
    page: Page,
    socket: Option<UdpSocket>,
    next_endpoint: usize,
}

impl Udp {
    pub fn new(settings: Settings, context: &Context) -> Udp {
        Udp {
            counts: Counts::new(&context.name, &context.metrics),
            state: Mutex::new(State {
                formatter: Formatter::new(settings.format, settings.policy.clone()),
                page: Page::new(Prefix::None),
                socket: None,
                next_endpoint: 0,
            }),
            settings,
        }
    }

    /// A socket to the next endpoint. Nothing is sent by that: whether somebody listens is not known.
    async fn socket<'a>(&self, state: &'a mut State) -> io::Result<&'a UdpSocket> {
        if state.socket.is_none() {
            let endpoints = &self.settings.endpoints;
            let endpoint = &endpoints[state.next_endpoint % endpoints.len()];
            if endpoints.len() > 1 || self.settings.order == Endpoints::RoundRobin {
                state.next_endpoint += 1;
            }
            state.socket = Some(open(endpoint).await?);
            self.counts.connected();
        }
        state
            .socket
            .as_ref()
            .ok_or(io::ErrorKind::NotConnected.into())
    }

    async fn send(&self, state: &mut State) -> io::Result<()> {
        self.socket(state).await?;
        let Some(socket) = &state.socket else {
            return Ok(());
        };
        for message in state.page.messages() {
            socket.send(message).await?;
        }
        self.counts
            .written(state.page.ends.len(), state.page.bytes.len(), false);
        Ok(())
    }
}

/// A socket that sends to this endpoint.
pub(crate) async fn open(endpoint: &Endpoint) -> io::Result<UdpSocket> {
    let target = (endpoint.host.as_str(), endpoint.port);
    let mut failed = io::Error::from(io::ErrorKind::NotFound);
    for addr in tokio::net::lookup_host(target).await? {
        let any = if addr.is_ipv4() {
            "0.0.0.0:0"
        } else {
            "[::]:0"
        };
        let socket = UdpSocket::bind(any).await?;
        match socket.connect(addr).await {
            Ok(()) => return Ok(socket),
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

impl Destination for Udp {
    async fn deliver(&self, batch: &Batch) -> Delivery {
        let mut state = self.state.lock().await;
        let state = &mut *state;
        let mut outcomes = Vec::with_capacity(batch.len());
        for event in batch.events() {
            state.page.clear();
            let written = state.formatter.write(event, &mut state.page);
            if let Err(refusal) = written.map_err(|refusal: Refusal| refusal.into()) {
                outcomes.push(refusal);
                continue;
            }
            if let Err(error) = self.send(state).await {
                // Mostly word that nobody listens, of a datagram before. The rest comes again.
                self.counts.broken(&error);
                state.socket = None;
                let why = Reason::new("datagram", error.to_string());
                outcomes.push(Outcome::Retry(why.clone()));
                outcomes.resize(batch.len(), Outcome::Later(why));
                break;
            }
            outcomes.push(Outcome::Delivered);
        }
        Delivery::Each(outcomes)
    }
}
