//! The two threads of the generator: everybody who reads, and everybody who sends.

use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use crate::BenchError;
use crate::certs;
use crate::control::{Emitted, Progress, Shared};
use crate::emit::{Emitter, EmitterReport, Pace};
use crate::plan::{Plan, Readers};
use crate::receive::{Receiver, ReceiverReport};
use crate::subscribe::{Request, Stall, Subscriber};
use crate::target::Opened;
use crate::tracker::Group;
use crate::websocket::WebSocket;
use crate::workload::{Shape, source_id};

/// Everybody who reads, on one thread.
pub(crate) struct ReaderSide {
    pub(crate) progress: Vec<Arc<Progress>>,
    pub(crate) groups: Vec<Arc<Mutex<Group>>>,
    pub(crate) thread: JoinHandle<Vec<ReceiverReport>>,
}

fn runtime() -> Result<tokio::runtime::Runtime, BenchError> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| BenchError::new(format!("runtime: {e}")))
}

pub(crate) fn start_readers(
    plan: &Plan,
    opened: &Opened,
    control: &Shared,
) -> Result<ReaderSide, BenchError> {
    let streams = plan.streams();
    let count = plan.readers.count();
    let tls = certs::client(&opened.files, b"h2")?;
    let websocket_tls = certs::client(&opened.files, b"")?;
    let mut groups = Vec::new();
    let mut progress = Vec::new();
    let mut tasks: Vec<(Reader, Receiver)> = Vec::new();
    for i in 0..count {
        let members = matches!(plan.readers, Readers::Members(_));
        if !members || i == 0 {
            groups.push(Arc::new(Mutex::new(match plan.readers {
                Readers::Tails(_) => {
                    Group::of_source(streams, (i % plan.shape.sources) as u32, plan.shape.sources)
                }
                _ => Group::of_all(streams),
            })));
        }
        let group = groups[if members { 0 } else { i }].clone();
        let mine = Arc::new(Progress::default());
        progress.push(mine.clone());
        let receiver = Receiver::new(control.clone(), mine, group, streams);
        let reader = match plan.readers {
            Readers::WebSockets(_) => Reader::V1(WebSocket {
                addr: opened
                    .front
                    .ok_or_else(|| BenchError::new("WebSockets need a traffic controller"))?,
                tls: plan.secure_websockets.then(|| websocket_tls.clone()),
                path: format!("/firehose/bench-{i}"),
                token: plan.token.clone(),
                control: control.clone(),
            }),
            _ => Reader::V2(Subscriber {
                addr: match (&plan.readers, opened.front) {
                    (Readers::Proxied(_), Some(proxy)) => proxy,
                    (Readers::Proxied(_), None) => {
                        return Err(BenchError::new("there is no reverse log proxy to read"));
                    }
                    _ => opened.doppler,
                },
                tls: tls.clone(),
                request: Request {
                    preferred_tags: plan.preferred_tags,
                    shard_id: if members {
                        "bench".into()
                    } else {
                        format!("bench-{i}")
                    },
                    source_id: match plan.readers {
                        Readers::Tails(_) => source_id(i % plan.shape.sources),
                        _ => String::new(),
                    },
                },
                windows: plan.windows,
                stall: plan.stall.filter(|_| i == 0).map(|length| Stall {
                    after: plan.warmup,
                    length,
                }),
                at_most: plan.slow.filter(|_| i == 0),
                control: control.clone(),
            }),
        };
        tasks.push((reader, receiver));
    }
    let runtime = runtime()?;
    let thread = std::thread::Builder::new()
        .name("readers".into())
        .spawn(move || {
            runtime.block_on(async {
                let mut running = Vec::new();
                for (reader, receiver) in tasks {
                    running.push(tokio::spawn(async move {
                        match reader {
                            Reader::V1(websocket) => websocket.run(receiver).await,
                            Reader::V2(subscriber) => subscriber.run(receiver).await,
                        }
                    }));
                }
                let mut reports = Vec::new();
                for task in running {
                    reports.extend(task.await);
                }
                reports
            })
        })
        .map_err(|e| BenchError::new(format!("thread: {e}")))?;
    Ok(ReaderSide {
        progress,
        groups,
        thread,
    })
}

enum Reader {
    V1(WebSocket),
    V2(Subscriber),
}

/// Everybody who sends, on another thread.
pub(crate) struct EmitterSide {
    pub(crate) progress: Vec<Arc<Emitted>>,
    pub(crate) thread: JoinHandle<Vec<EmitterReport>>,
}

pub(crate) fn start_emitters(
    plan: &Plan,
    opened: &Opened,
    control: &Shared,
) -> Result<EmitterSide, BenchError> {
    let tls = certs::client(&opened.files, b"h2")?;
    let progress: Vec<Arc<Emitted>> = (0..plan.streams()).map(|_| Arc::default()).collect();
    let emitters: Vec<Emitter> = progress
        .iter()
        .enumerate()
        .map(|(index, progress)| {
            let quiet = plan.quiet.filter(|_| index == plan.shape.streams);
            let single = Shape {
                batch: 1,
                sources: 1,
                streams: 1,
                ..plan.shape
            };
            Emitter {
                index,
                addr: opened.doppler,
                tls: tls.clone(),
                shape: if quiet.is_some() { single } else { plan.shape },
                first_source: if quiet.is_some() {
                    plan.shape.sources
                } else {
                    0
                },
                pace: quiet.map_or(plan.pace, Pace::Rate),
                progress: progress.clone(),
                control: control.clone(),
            }
        })
        .collect();
    let runtime = runtime()?;
    let thread = std::thread::Builder::new()
        .name("emitters".into())
        .spawn(move || {
            runtime.block_on(async {
                let running: Vec<_> = emitters
                    .into_iter()
                    .map(|emitter| tokio::spawn(emitter.run()))
                    .collect();
                let mut reports = Vec::new();
                for task in running {
                    reports.extend(task.await);
                }
                reports
            })
        })
        .map_err(|e| BenchError::new(format!("thread: {e}")))?;
    Ok(EmitterSide { progress, thread })
}
