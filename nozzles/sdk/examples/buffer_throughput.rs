//! What the buffer costs: `cargo run --release -p loggregator-nozzle --example buffer_throughput [FOLDER]`.
//!
//! Appends frames of 100 log envelopes of 560 bytes and reads them, in memory and on disk, and prints events and bytes per second
//! and processor seconds per million events (of all threads, so that on one core less than the wall clock shows).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

use std::path::Path;
use std::time::{Duration, Instant};

use loggregator_envelope::{Frame, FrameBuilder};
use loggregator_nozzle::Account;
use loggregator_nozzle::buffer::{Buffer, Cursor, Settings};
use loggregator_nozzle::config::{Backlog, BufferConfig, DiskBuffer, MemoryBuffer, Size, Time};
use loggregator_proto::v2::{Envelope, Log, envelope};

const PER_FRAME: u64 = 100;

#[tokio::main]
async fn main() {
    let folder = std::env::args_os().nth(1);
    let folder = folder.map_or_else(std::env::temp_dir, Into::into);
    let frame = frame();
    println!("what                                        events/s      MB/s   CPU s per million");
    for destinations in [1, 4] {
        let buffer = memory(destinations);
        let name = format!("memory: append, {destinations} reading the tail");
        tail(&name, &buffer, &frame, 20_000, destinations).await;
    }
    let dir = tempfile::tempdir_in(&folder).unwrap();
    let buffer = disk(dir.path(), 1, Duration::from_millis(500));
    behind(&buffer, &frame, 20_000).await;
    drop(buffer);
    for destinations in [1, 4] {
        let dir = tempfile::tempdir_in(&folder).unwrap();
        let buffer = disk(dir.path(), destinations, Duration::from_millis(500));
        let name = format!("disk: append, {destinations} reading the tail");
        tail(&name, &buffer, &frame, 20_000, destinations).await;
    }
    let dir = tempfile::tempdir_in(&folder).unwrap();
    let buffer = disk(dir.path(), 1, Duration::ZERO);
    tail(
        "disk: append, each synced, 1 reading",
        &buffer,
        &frame,
        500,
        1,
    )
    .await;
    let started = Instant::now();
    drop(buffer);
    let dir = tempfile::tempdir_in(&folder).unwrap();
    let buffer = disk(dir.path(), 1, Duration::from_millis(500));
    append(&buffer, &frame, 15_000).await;
    drop(buffer);
    println!("(closed after {:?})", started.elapsed());
    let measured = Measured::start();
    let buffer = disk(dir.path(), 1, Duration::from_millis(500));
    measured.print(
        "disk: opened again, everything checked",
        buffer.report().next,
        &frame,
    );
}

fn frame() -> Frame {
    let mut builder = FrameBuilder::new();
    for i in 0..PER_FRAME {
        let mut envelope = Envelope {
            source_id: format!("5e0c2b6a-97ab-4d1b-a0c4-{i:012}"),
            instance_id: "0".to_owned(),
            timestamp: 1_700_000_000_000_000_000,
            ..Envelope::default()
        };
        for tag in ["deployment", "job", "index", "ip", "origin", "app_name"] {
            envelope
                .tags
                .insert(tag.to_owned(), "something-or-other".to_owned());
        }
        envelope.message = Some(envelope::Message::Log(Log {
            payload: vec![b'x'; 250].into(),
            r#type: 0,
        }));
        builder.push_message(&envelope).unwrap();
    }
    let (bytes, index) = builder.finish();
    Frame::from_parts(bytes, index)
}

fn destinations(n: usize) -> Vec<(String, Backlog)> {
    (0..n)
        .map(|i| (i.to_string(), Backlog::default()))
        .collect()
}

fn memory(n: usize) -> Buffer {
    Buffer::open(&Settings {
        store: BufferConfig::Memory(MemoryBuffer {
            max_bytes: Size(256 << 20),
        }),
        destinations: destinations(n),
    })
    .unwrap()
}

fn disk(path: &Path, n: usize, sync_interval: Duration) -> Buffer {
    Buffer::open(&Settings {
        store: BufferConfig::Disk(DiskBuffer {
            path: path.to_owned(),
            max_bytes: Size(4 << 30),
            segment_bytes: Size(16 << 20),
            sync_interval: Time(sync_interval),
            memory_bytes: Size(16 << 20),
        }),
        destinations: destinations(n),
    })
    .unwrap()
}

async fn append(buffer: &Buffer, frame: &Frame, frames: u64) {
    for _ in 0..frames {
        let appended = buffer.append(frame, 1).await;
        assert_eq!(appended.accepted, PER_FRAME);
    }
}

async fn read(mut cursor: Cursor, events: u64) {
    let (mut next, mut account) = cursor.start();
    while next < events {
        let read = cursor.next(1000, 1 << 20).await.unwrap();
        assert_eq!(read.lost, []);
        next += read.events.len() as u64;
        account.delivered += read.events.len() as u64;
        cursor.checkpoint(next, &account);
    }
}

/// Appends while everybody reads what has just come.
async fn tail(name: &str, buffer: &Buffer, frame: &Frame, frames: u64, destinations: usize) {
    let measured = Measured::start();
    let readers: Vec<_> = (0..destinations)
        .map(|i| {
            let cursor = buffer.cursor(&i.to_string()).unwrap();
            tokio::spawn(read(cursor, frames * PER_FRAME))
        })
        .collect();
    for _ in 0..frames / 100 {
        append(buffer, frame, 100).await;
        // Not so fast that the slowest one leaves the tail.
        loop {
            let cursors = buffer.report().cursors;
            if cursors.iter().all(|cursor| cursor.events < 20_000) {
                break;
            }
            tokio::task::yield_now().await;
        }
    }
    for reader in readers {
        reader.await.unwrap();
    }
    measured.print(name, frames * PER_FRAME, frame);
}

/// Appends first and reads afterwards, from the disk.
async fn behind(buffer: &Buffer, frame: &Frame, frames: u64) {
    let measured = Measured::start();
    append(buffer, frame, frames).await;
    measured.print("disk: append, nobody reading", frames * PER_FRAME, frame);
    let measured = Measured::start();
    let cursor = buffer.cursor("0").unwrap();
    assert_eq!(cursor.start(), (0, Account::default()));
    read(cursor, frames * PER_FRAME).await;
    measured.print("disk: reading what lies behind", frames * PER_FRAME, frame);
}

struct Measured {
    started: Instant,
    cpu: f64,
}

impl Measured {
    fn start() -> Measured {
        Measured {
            started: Instant::now(),
            cpu: cpu_seconds(),
        }
    }

    fn print(self, name: &str, events: u64, frame: &Frame) {
        let seconds = self.started.elapsed().as_secs_f64();
        let cpu = cpu_seconds() - self.cpu;
        let rate = events as f64 / seconds;
        let bytes = frame.bytes().len() as f64 / PER_FRAME as f64;
        println!(
            "{name:40} {rate:11.0} {:9.0} {:19.2}",
            rate * bytes / 1e6,
            cpu * 1e6 / events as f64
        );
    }
}

/// Processor time of all threads, as Linux counts it: in hundredths of a second.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default();
    let ticks = fields.split_whitespace().skip(11).take(2);
    ticks
        .filter_map(|ticks| ticks.parse::<f64>().ok())
        .sum::<f64>()
        / 100.0
}
