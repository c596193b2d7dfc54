//! The status socket: who connects gets one JSON document and the end of the stream.
//!
//! Signal and rates change all the time, and nobody tells: who asks gets those of the moment, if the radio tells them in time.
//! Until then clients wait here, and the loop goes on. A document is rendered once for all who wait and written to each by a task
//! of its own, so a slow reader delays nobody; the number of clients at a time and the time each may take are bounded.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt as _;
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;
use tracing::debug;

/// Clients served at a time; one more is turned away at once.
const CLIENT_LIMIT: usize = 8;
/// How long a client may take to read its document.
const CLIENT_PATIENCE: Duration = Duration::from_secs(2);
/// How long a client may wait for the radio, which may not answer at all.
const RADIO_PATIENCE: Duration = Duration::from_millis(500);

/// The listening socket, removed with the value.
#[derive(Debug)]
pub(crate) struct StatusServer {
    listener: UnixListener,
    path: PathBuf,
    waiting: Vec<UnixStream>,
    /// When those who wait get what there is.
    due: Option<Instant>,
    clients: JoinSet<()>,
}

impl StatusServer {
    /// Listens on `path`. A socket that is there already is a dead agent's: the caller holds the run directory.
    pub(crate) fn listen(path: &Path) -> io::Result<StatusServer> {
        if fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket()) {
            fs::remove_file(path)?;
        }
        let listener = UnixListener::bind(path)?;
        fs::set_permissions(path, Permissions::from_mode(0o660))?;
        Ok(StatusServer {
            listener,
            path: path.to_owned(),
            waiting: Vec::new(),
            due: None,
            clients: JoinSet::new(),
        })
    }

    /// Waits for a client.
    pub(crate) async fn accept(&self) -> io::Result<UnixStream> {
        let (client, _) = self.listener.accept().await?;
        Ok(client)
    }

    /// Has a client wait for its document, unless too many are being served.
    pub(crate) fn admit(&mut self, client: UnixStream, now: Instant) {
        while self.clients.try_join_next().is_some() {}
        if self.waiting.len() + self.clients.len() >= CLIENT_LIMIT {
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
            self.clients.spawn(async move {
                let written = client.write_all(&document);
                let written = tokio::time::timeout(CLIENT_PATIENCE, written).await;
                if !matches!(written, Ok(Ok(()))) {
                    debug!("a status client did not read its document");
                }
            });
        }
    }
}

impl Drop for StatusServer {
    fn drop(&mut self) {
        // The directory may be gone by then, and a socket left over is replaced by the next start.
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;

    use super::*;

    #[tokio::test]
    async fn clients_wait_together_and_not_for_ever() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("status.sock");
        let mut server = StatusServer::listen(&path).unwrap();
        let now = Instant::now();
        let mut asking = Vec::new();
        for number in 0..CLIENT_LIMIT + 1 {
            asking.push(UnixStream::connect(&path).await.unwrap());
            let client = server.accept().await.unwrap();
            server.admit(client, now + Duration::from_millis(number as u64));
        }
        assert_eq!(server.due(), Some(now + RADIO_PATIENCE));
        server.answer(b"{}");
        assert_eq!(server.due(), None);
        for (number, mut client) in asking.into_iter().enumerate() {
            let mut document = String::new();
            client.read_to_string(&mut document).await.unwrap();
            // One was too many.
            let expected = if number < CLIENT_LIMIT { "{}" } else { "" };
            assert_eq!(document, expected, "{number}");
        }
    }
}
