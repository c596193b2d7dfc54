//! Clients that each get one document and the end of the stream, and of whom nothing is read.
//!
//! Signal and rates change all the time, and nobody tells: who asks gets those of the moment, if the radio tells them in time.
//! Until then clients wait here, and the loop goes on. A document is rendered once for all who wait and written to each by a task
//! of its own, so a slow reader delays nobody; the number of clients at a time and the time each may take are bounded.

use std::time::{Duration, Instant};

use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tokio::task::JoinSet;
use tracing::debug;

/// Clients served at a time; one more is turned away at once.
pub(crate) const CLIENT_LIMIT: usize = 8;
/// How long a client may take to read its document.
const CLIENT_PATIENCE: Duration = Duration::from_secs(2);
/// How long a client may wait for the radio, which may not answer at all.
pub(crate) const RADIO_PATIENCE: Duration = Duration::from_millis(500);

/// Those who wait, and those who are being served.
#[derive(Debug)]
pub(crate) struct Clients<Stream> {
    waiting: Vec<Stream>,
    /// When those who wait get what there is.
    due: Option<Instant>,
    served: JoinSet<()>,
}

impl<Stream: AsyncWrite + Unpin + Send + 'static> Clients<Stream> {
    /// Has a client wait for its document, unless too many are being served.
    pub(crate) fn admit(&mut self, client: Stream, now: Instant) {
        while self.served.try_join_next().is_some() {}
        if self.waiting.len() + self.served.len() >= CLIENT_LIMIT {
            debug!("too many status clients");
            return;
        }
        self.waiting.push(client);
        self.due.get_or_insert(now + RADIO_PATIENCE);
    }

    /// Returns when those who wait, if any do, get what there is.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Sends those who wait their document.
    pub(crate) fn answer(&mut self, document: &[u8]) {
        self.due = None;
        for mut client in self.waiting.drain(..) {
            let document = document.to_vec();
            self.served.spawn(async move {
                let written = async {
                    client.write_all(&document).await?;
                    client.shutdown().await
                };
                let written = tokio::time::timeout(CLIENT_PATIENCE, written).await;
                if !matches!(written, Ok(Ok(()))) {
                    debug!("a status client did not read its document");
                }
            });
        }
    }
}

impl<Stream> Default for Clients<Stream> {
    fn default() -> Clients<Stream> {
        Clients {
            waiting: Vec::new(),
            due: None,
            served: JoinSet::new(),
        }
    }
}
