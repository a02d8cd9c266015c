//! The destination for TCP and TLS: writes batches into pages and hands them to the [`Link`].

use std::sync::Arc;

use loggregator_nozzle::{Batch, Context, Delivery, Destination, Outcome, Reason};
use parking_lot::Mutex;
use tokio::sync::{Semaphore, mpsc, oneshot};

use crate::config::Settings;
use crate::counts::Counts;
use crate::format::Formatter;
use crate::link::{Command, Failure, Job, Link};
use crate::page::{Page, Prefix};

/// Batches that wait for the link: more than are ever on their way.
const COMMANDS: usize = 256;

/// Pages that are kept to be used again.
const PAGES: usize = 16;

/// Bytes of all pages that are with the link. A page waits until there is room for it, and no other is written meanwhile.
const UNDER_WAY: usize = 64 << 20;

pub(crate) struct Stream {
    prefix: Prefix,
    /// Batches have it one after the other, until they are with the link: that keeps their order.
    formatter: tokio::sync::Mutex<Formatter>,
    room: Semaphore,
    pages: Mutex<Vec<Page>>,
    link: mpsc::Sender<Command>,
}

impl Stream {
    pub fn start(settings: Settings, context: &Context) -> Stream {
        let counts = Counts::new(&context.name, &context.metrics);
        let settings = Arc::new(settings);
        let (link, commands) = mpsc::channel(COMMANDS);
        let task = Link::new(Arc::clone(&settings), counts, commands);
        let cut = context.lifecycle.cut();
        let name = format!("syslog connection of {}", context.name);
        context.lifecycle.spawn(name, task.run(cut));
        Stream {
            prefix: settings.prefix,
            formatter: Formatter::new(settings.format, settings.policy.clone()).into(),
            room: Semaphore::new(UNDER_WAY),
            pages: Mutex::default(),
            link,
        }
    }

    fn page(&self) -> Page {
        let page = self.pages.lock().pop();
        page.unwrap_or_else(|| Page::new(self.prefix))
    }

    fn put_back(&self, mut page: Page) {
        page.clear();
        let mut pages = self.pages.lock();
        if pages.len() < PAGES {
            pages.push(page);
        }
    }
}

/// A batch that is not with the link yet. If it does not get there, newer ones must not overtake it.
struct Unsent<'a> {
    link: &'a mpsc::Sender<Command>,
    first: u64,
    sent: bool,
}

impl Drop for Unsent<'_> {
    fn drop(&mut self) {
        if !self.sent {
            // There is room: no batch has more than one command waiting. Without a link there is no order to keep.
            self.link.try_send(Command::NotSent(self.first)).ok();
        }
    }
}

/// The link has ended, and with it the process's time.
fn stopping() -> Delivery {
    Delivery::Retry {
        why: Reason::new("stopping", "the connection was given up"),
        after: None,
    }
}

impl Destination for Stream {
    async fn deliver(&self, batch: &Batch) -> Delivery {
        let first = batch.events().first().map_or(0, |event| event.seq);
        let mut unsent = Unsent {
            link: &self.link,
            first,
            sent: false,
        };
        let mut formatter = self.formatter.lock().await;
        let mut page = self.page();
        let outcomes = match formatter.write_all(batch, &mut page) {
            Ok(outcomes) => outcomes,
            Err(why) => {
                self.put_back(page);
                return Delivery::TooLarge(why);
            }
        };
        let delivered = || outcomes.map_or(Delivery::All, Delivery::Each);
        if page.ends.is_empty() {
            unsent.sent = true;
            self.put_back(page);
            return delivered();
        }
        let size = u32::try_from(page.bytes.len().min(UNDER_WAY)).unwrap_or(u32::MAX);
        // Held until the page is back.
        let Ok(_room) = self.room.acquire_many(size).await else {
            return stopping();
        };
        let (done, confirmed) = oneshot::channel();
        let job = Job {
            first,
            page,
            again: batch.attempt() > 0,
            done,
        };
        if self.link.send(Command::Send(job)).await.is_err() {
            return stopping();
        }
        unsent.sent = true;
        drop(formatter);
        let Ok((outcome, page)) = confirmed.await else {
            return stopping();
        };
        self.put_back(page);
        match outcome {
            Ok(()) => delivered(),
            Err(Failure::Tried(why)) => Delivery::retry(why),
            Err(Failure::Behind(why)) => Delivery::Each(vec![Outcome::Later(why); batch.len()]),
        }
    }

    async fn close(&self) {
        let (done, closed) = oneshot::channel();
        if self.link.send(Command::Close(done)).await.is_ok() {
            // It ends either way.
            drop(closed.await);
        }
    }
}
