//! The status socket: who connects gets one JSON document and the end of the stream.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use tokio::net::{UnixListener, UnixStream};

/// The listening socket, removed with the value.
#[derive(Debug)]
pub(crate) struct StatusServer {
    listener: UnixListener,
    path: PathBuf,
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
        })
    }

    /// Waits for a client.
    pub(crate) async fn accept(&self) -> io::Result<UnixStream> {
        let (client, _) = self.listener.accept().await?;
        Ok(client)
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
    use std::time::{Duration, Instant};

    use tokio::io::AsyncReadExt as _;

    use super::*;
    use crate::shell::clients::{CLIENT_LIMIT, Clients, RADIO_PATIENCE};

    #[tokio::test]
    async fn clients_wait_together_and_not_for_ever() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("status.sock");
        let server = StatusServer::listen(&path).unwrap();
        let mut clients = Clients::default();
        let now = Instant::now();
        let mut asking = Vec::new();
        for number in 0..CLIENT_LIMIT + 1 {
            asking.push(UnixStream::connect(&path).await.unwrap());
            let client = server.accept().await.unwrap();
            clients.admit(client, now + Duration::from_millis(number as u64));
        }
        assert_eq!(clients.due(), Some(now + RADIO_PATIENCE));
        clients.answer(b"{}");
        assert_eq!(clients.due(), None);
        for (number, mut client) in asking.into_iter().enumerate() {
            let mut document = String::new();
            client.read_to_string(&mut document).await.unwrap();
            // One was too many.
            let expected = if number < CLIENT_LIMIT { "{}" } else { "" };
            assert_eq!(document, expected, "{number}");
        }
    }
}
