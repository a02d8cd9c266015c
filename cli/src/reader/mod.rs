//! Envelopes from wherever they come: dopplers over gRPC v2, or a traffic controller over WebSocket.
//!
//! A task per connection reads and hands over whole frames; the screen takes them one after the other. When the screen
//! is slow (a pipe that nobody reads), the tasks wait, the connection fills, and the doppler counts what is lost.

mod grpc;
mod web;

use crate::target::{Reach, TargetArgs};
use anyhow::Result;
use loggregator_envelope::{Frame, KindSet};
use tokio::sync::mpsc;

/// Frames between a connection and the screen; a frame is at most a few hundred kilobytes.
const FRAMES_WAITING: usize = 16;

/// What to read.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// These sources; empty for all.
    pub sources: Vec<String>,
    /// These kinds.
    pub kinds: KindSet,
    /// Share the stream with everybody of the same id.
    pub subscription_id: Option<String>,
}

/// What a connection has to say.
#[derive(Debug)]
pub enum Heard {
    /// The subscription stands: what is sent from now on arrives.
    Ready(String),
    /// Envelopes, and how many were too damaged to show.
    Frame(Frame, u32),
    /// Something that a person should know, such as a lost connection. The reader goes on.
    Notice(String),
    /// It is over.
    Failed(anyhow::Error),
}

/// A subscription, read in the background until dropped.
pub struct Reader {
    heard: mpsc::Receiver<Heard>,
}

impl Reader {
    /// Finds the deployment and subscribes.
    ///
    /// # Errors
    /// When no pipeline runs there or its files cannot be read. Whether it answers is heard later.
    pub fn open(target: &TargetArgs, wanted: Wanted) -> Result<Self> {
        let (say, heard) = mpsc::channel(FRAMES_WAITING);
        match target.reach()? {
            Reach::Dopplers { addrs, tls } => {
                tokio::spawn(grpc::read(target.clone(), addrs, tls, wanted, say));
            }
            Reach::Web { url, token, ca } => web::spawn(&url, token, ca.as_deref(), &wanted, &say)?,
        }
        Ok(Self { heard })
    }

    /// What comes next; `None` when every connection has ended. May be cancelled.
    pub async fn next(&mut self) -> Option<Heard> {
        self.heard.recv().await
    }

    /// What is there already, without waiting.
    pub fn try_next(&mut self) -> Option<Heard> {
        self.heard.try_recv().ok()
    }
}
