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
