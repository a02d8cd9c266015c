//! The destination for TCP and TLS: writes batches into pages and hands them to the [`Link`].

use std::sync::Arc;

use loggregator_nozzle::{Batch, Context, Delivery, Destination, Reason};
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

use crate::config::Settings;
use crate::counts::Counts;
use crate::format::Formatter;
use crate::link::{Command, Job, Link};
use crate::page::{Page, Prefix};

/// Batches that wait for the link: more than are ever on their way.
const COMMANDS: usize = 256;

/// Pages that are kept to be used again.
const PAGES: usize = 16;

pub(crate) struct Stream {
    prefix: Prefix,
    formatter: Mutex<Formatter>,
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
            formatter: Mutex::new(Formatter::new(settings.format, settings.policy.clone())),
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

/// The link has ended, and with it the process's time.
fn stopping() -> Delivery {
    Delivery::Retry {
        why: Reason::new("stopping", "the connection was given up"),
        after: None,
    }
}

impl Destination for Stream {
    async fn deliver(&self, batch: &Batch) -> Delivery {
        let mut page = self.page();
        let outcomes = self.formatter.lock().write_all(batch, &mut page);
        let delivered = || outcomes.map_or(Delivery::All, Delivery::Each);
        let first = batch.events().first().map_or(0, |event| event.seq);
        if page.ends.is_empty() {
            self.put_back(page);
            return delivered();
        }
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
        let Ok((outcome, page)) = confirmed.await else {
            return stopping();
        };
        self.put_back(page);
        match outcome {
            Ok(()) => delivered(),
            Err(why) => Delivery::Retry { why, after: None },
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
