//! Reading from a traffic controller: v1 envelopes over WebSocket, turned into v2 for the screen.

use super::{Heard, Wanted};
use crate::exit::{Coded, Exit};
use crate::target::Url;
use crate::view::is_glob;
use anyhow::Result;
use futures_util::FutureExt as _;
use loggregator_client::ws::{Filter, Subject, WsConfig, WsError, WsEvent, WsStream};
use loggregator_envelope::{Kind, KindSet, V1Builder};
use loggregator_net::ClientTls;
use std::path::Path;
use tokio::sync::mpsc::Sender;

/// Envelopes joined into one frame for the screen, when so many have arrived already.
const JOINED: usize = 256;
/// With more sources than this one firehose is cheaper than a connection each.
const CONNECTIONS: usize = 8;

/// Starts a task per WebSocket.
pub(super) fn spawn(
    url: &Url,
    token: Option<String>,
    ca: Option<&Path>,
    wanted: &Wanted,
    say: &Sender<Heard>,
) -> Result<()> {
    let mut config = WsConfig::new(&url.text);
    config.token = token;
    config.tls = ca.map(ClientTls::ca_only).transpose()?;
    for subject in subjects(wanted) {
        tokio::spawn(read(
            WsStream::new(config.clone(), subject),
            url.text.clone(),
            say.clone(),
        ));
    }
    Ok(())
}

fn subjects(wanted: &Wanted) -> Vec<Subject> {
    let by_name = !wanted.sources.is_empty()
        && wanted.sources.len() <= CONNECTIONS
        && !wanted.sources.iter().any(|source| is_glob(source));
    if by_name && wanted.subscription_id.is_none() {
        return wanted.sources.iter().cloned().map(Subject::App).collect();
    }
    let id = wanted
        .subscription_id
        .clone()
        .unwrap_or_else(|| format!("loggregator-cli-{:016x}", fastrand::u64(..)));
    let filter = match wanted.kinds {
        kinds if kinds == KindSet::of(Kind::Log) => Some(Filter::Logs),
        kinds if !kinds.contains(Kind::Log) => Some(Filter::Metrics),
        _ => None,
    };
    vec![Subject::Firehose { id, filter }]
}

async fn read(mut stream: WsStream, url: String, say: Sender<Heard>) {
    let mut builder = V1Builder::new();
    let mut was_connected = false;
    loop {
        let event = tokio::select! {
            event = stream.next() => event,
            () = say.closed() => break,
        };
        // More of what has arrived already goes into the same frame; whatever else comes up is told after it.
        let (mut heard, mut event) = (Vec::new(), Some(event));
        let mut damaged = 0;
        while let Some(this) = event.take() {
            match this {
                Ok(WsEvent::Envelope(payload)) => {
                    damaged += u32::from(builder.push(&payload).is_err());
                    if builder.len() < JOINED {
                        event = stream.next().now_or_never();
                    }
                }
                other => heard.push(told(other, &url, &mut was_connected)),
            }
        }
        if !builder.is_empty() || damaged > 0 {
            heard.insert(0, Heard::Frame(builder.finish(), damaged));
        }
        for this in heard {
            let over = matches!(this, Heard::Failed(_));
            if say.send(this).await.is_err() || over {
                stream.close().await;
                return;
            }
        }
    }
    stream.close().await;
}

fn told(event: Result<WsEvent, WsError>, url: &str, was_connected: &mut bool) -> Heard {
    match event {
        Ok(WsEvent::Connected) if *was_connected => {
            Heard::Notice("connected again; lines of the time in between may be missing".to_owned())
        }
        Ok(WsEvent::Connected | WsEvent::Envelope(_)) => {
            *was_connected = true;
            Heard::Ready(url.to_owned())
        }
        Ok(WsEvent::Disconnected { error, retry_in }) if *was_connected => Heard::Notice(format!(
            "connection to {url} lost ({error}); next attempt in {:.1} s",
            retry_in.as_secs_f64()
        )),
        Ok(WsEvent::Disconnected { error, .. }) => Heard::Failed(Coded::error(
            Exit::Unreachable,
            format!("cannot subscribe at {url}: {error}"),
        )),
        Err(error @ WsError::Unauthorized { .. }) => Heard::Failed(Coded::error(
            Exit::Denied,
            format!(
                "{}\nCheck `--token-file`: the token must be allowed to read this (an app, or `doppler.firehose`).",
                error.to_string().trim_end_matches([':', ' '])
            ),
        )),
        Err(error) => Heard::Failed(Coded::error(
            Exit::Unreachable,
            format!("cannot subscribe at {url}: {error}"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(sources: &[&str], kinds: KindSet) -> Wanted {
        Wanted {
            sources: sources.iter().map(|s| (*s).to_owned()).collect(),
            kinds,
            subscription_id: None,
        }
    }

    #[test]
    fn names_are_streams_of_their_own_and_patterns_need_the_firehose() {
        assert_eq!(
            subjects(&wanted(&["a", "b"], KindSet::ALL)),
            [Subject::App("a".to_owned()), Subject::App("b".to_owned())]
        );
        let [Subject::Firehose { filter: None, .. }] =
            &subjects(&wanted(&["a", "b*"], KindSet::ALL))[..]
        else {
            panic!("a glob needs the firehose")
        };
        let [
            Subject::Firehose {
                filter: Some(Filter::Logs),
                ..
            },
        ] = &subjects(&wanted(&[], KindSet::of(Kind::Log)))[..]
        else {
            panic!("only logs are asked for")
        };
        let [
            Subject::Firehose {
                filter: Some(Filter::Metrics),
                ..
            },
        ] = &subjects(&wanted(&[], KindSet::of(Kind::Gauge)))[..]
        else {
            panic!("only metrics are asked for")
        };
    }

    #[test]
    fn before_the_first_connection_trouble_is_fatal_and_afterwards_it_is_not() {
        let lost = || {
            Ok(WsEvent::Disconnected {
                error: WsError::Broken("x".to_owned()),
                retry_in: std::time::Duration::from_millis(500),
            })
        };
        let mut connected = false;
        assert!(matches!(
            told(lost(), "u", &mut connected),
            Heard::Failed(_)
        ));
        assert!(matches!(
            told(Ok(WsEvent::Connected), "u", &mut connected),
            Heard::Ready(_)
        ));
        assert!(matches!(
            told(lost(), "u", &mut connected),
            Heard::Notice(_)
        ));
        assert!(matches!(
            told(Ok(WsEvent::Connected), "u", &mut connected),
            Heard::Notice(_)
        ));
        let denied = WsError::Unauthorized {
            status: 401,
            body: "no".to_owned(),
        };
        let Heard::Failed(error) = told(Err(denied), "u", &mut connected) else {
            panic!("denied is final")
        };
        assert_eq!(crate::exit::of(&error), Exit::Denied);
    }
}
