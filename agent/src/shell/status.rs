//! The status socket: who connects gets one JSON document and the end of the stream.
//!
//! A document is rendered when a client is accepted and written by a task of its own, so a slow reader delays nobody; the number
//! of clients at a time and the time each may take are bounded.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;
use tracing::debug;

/// Clients served at a time; one more is turned away at once.
const CLIENT_LIMIT: usize = 8;
/// How long a client may take to read its document.
const CLIENT_PATIENCE: Duration = Duration::from_secs(2);

/// The listening socket, removed with the value.
#[derive(Debug)]
pub(crate) struct StatusServer {
    listener: UnixListener,
    path: PathBuf,
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
            clients: JoinSet::new(),
        })
    }

    /// Waits for a client.
    pub(crate) async fn accept(&self) -> io::Result<UnixStream> {
        let (client, _) = self.listener.accept().await?;
        Ok(client)
    }

    /// Sends a client its document, unless too many are being served.
    pub(crate) fn answer(&mut self, mut client: UnixStream, document: Vec<u8>) {
        while self.clients.try_join_next().is_some() {}
        if self.clients.len() >= CLIENT_LIMIT {
            debug!("too many status clients");
            return;
        }
        self.clients.spawn(async move {
            let written = tokio::time::timeout(CLIENT_PATIENCE, client.write_all(&document)).await;
            if !matches!(written, Ok(Ok(()))) {
                debug!("a status client did not read its document");
            }
        });
    }
}

impl Drop for StatusServer {
    fn drop(&mut self) {
        // The directory may be gone by then, and a socket left over is replaced by the next start.
        let _ = fs::remove_file(&self.path);
    }
}
