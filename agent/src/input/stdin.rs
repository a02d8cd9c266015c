//! Standard input, to its end.

use std::io::{self, Read};

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::LineReader;

/// Bytes read at a time.
const READ: usize = 64 * 1024;

/// Reads standard input on a thread of its own, at most two chunks ahead. Not on one of the runtime's: a read that never
/// returns would keep the runtime from ending, whereas this thread ends with the process.
pub(crate) fn chunks_of_stdin() -> io::Result<mpsc::Receiver<Bytes>> {
    let (sender, chunks) = mpsc::channel(1);
    std::thread::Builder::new()
        .name("stdin".to_owned())
        .spawn(move || {
            let mut stdin = io::stdin().lock();
            let mut buffer = vec![0; READ];
            loop {
                match stdin.read(&mut buffer) {
                    Ok(0) => return,
                    Ok(len) => {
                        if sender
                            .blocking_send(Bytes::copy_from_slice(&buffer[..len]))
                            .is_err()
                        {
                            return;
                        }
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => {
                        tracing::error!(%error, "reading standard input");
                        return;
                    }
                }
            }
        })?;
    Ok(chunks)
}

/// Reads lines to the end of the chunks, or until `stop`.
pub(crate) async fn read_all(
    mut chunks: mpsc::Receiver<Bytes>,
    mut lines: LineReader,
    stop: CancellationToken,
) {
    while let Some(Some(chunk)) = stop.run_until_cancelled(chunks.recv()).await {
        lines.feed(&chunk).await;
    }
    // What was read already is not read again by anybody.
    chunks.close();
    while let Some(chunk) = chunks.recv().await {
        lines.feed(&chunk).await;
    }
    lines.end().await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Input, LineConfig};
    use crate::intake::Intake;
    use crate::stats::{Port, read};
    use loggregator_client::{Connector, DOPPLER, DopplerPool, DopplerSet, PoolSettings};
    use std::sync::Arc;

    fn intake() -> Arc<Intake> {
        let nobody = DopplerSet::fixed([], Connector::new(DOPPLER, None));
        let pool = DopplerPool::new(&nobody, PoolSettings::default());
        Arc::new(Intake::new([], 10, false, pool))
    }

    fn reader(intake: &Arc<Intake>) -> LineReader {
        let config = LineConfig {
            max_line: 4,
            ..LineConfig::default()
        };
        LineReader::new(Arc::clone(intake), Port::Stdin, Input::stdin("s"), &config)
    }

    #[tokio::test]
    async fn every_line_is_taken_to_the_last_one_without_an_end() {
        let intake = intake();
        let (sender, chunks) = mpsc::channel(4);
        for chunk in ["one\ntw", "o\n\nlong line\n", "last"] {
            sender
                .send(Bytes::from_static(chunk.as_bytes()))
                .await
                .unwrap();
        }
        drop(sender);
        read_all(chunks, reader(&intake), CancellationToken::new()).await;
        // "long line" makes three pieces of at most four bytes.
        assert_eq!(read(&intake.stats.port(Port::Stdin).accepted), 6);
        assert_eq!(
            (
                read(&intake.stats.lines_split),
                read(&intake.stats.lines_blank)
            ),
            (1, 1)
        );
        assert_eq!(intake.pool.report().pending(), 6);
    }

    #[tokio::test]
    async fn a_stop_ends_reading_but_loses_nothing_that_was_read() {
        let intake = intake();
        let (sender, chunks) = mpsc::channel(4);
        sender.send(Bytes::from_static(b"read\n")).await.unwrap();
        let stop = CancellationToken::new();
        stop.cancel();
        read_all(chunks, reader(&intake), stop).await;
        assert!(sender.is_closed());
        assert_eq!(read(&intake.stats.port(Port::Stdin).accepted), 1);
    }
}
