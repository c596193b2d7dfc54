//! One HTTP exchange: opens a file of a mirror, at an offset if the mirror can, and tells faults that may pass from those that will not.
//!
//! The only sockets of this crate are opened here.

use std::io::Read;
use std::time::Duration;

/// How long to wait for a mirror, and how often to try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// For name resolution and for the connection, each.
    pub connect: Duration,
    /// For the next bytes of an answer.
    pub stall: Duration,
    /// Attempts in a row without any progress.
    pub attempts: u32,
    /// Wait before the second attempt; it doubles with each further one.
    pub pause: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Patience {
            connect: Duration::from_secs(10),
            stall: Duration::from_secs(30),
            attempts: 4,
            pause: Duration::from_secs(1),
        }
    }
}

/// What went wrong in an exchange.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The mirror refused.
    #[error("the mirror answered with status {0}")]
    Status(u16),
    /// The mirror resumed at another place than asked.
    #[error("the mirror cannot resume where the download stopped")]
    Resume,
    /// The connection was closed before the end.
    #[error("the mirror closed the connection after {received} of {size} bytes")]
    Ended {
        /// Bytes received, those of earlier attempts included.
        received: u64,
        /// The size announced.
        size: u64,
    },
    /// The mirror sends more than any such file has.
    #[error("the mirror sends more than {0} bytes")]
    TooLong(u64),
    /// No connection, or it broke.
    #[error("{0}")]
    Transport(ureq::Error),
    /// The connection broke while receiving.
    #[error("{0}")]
    Receive(std::io::Error),
}

impl Fault {
    /// Tells whether trying again may help.
    pub(super) fn may_pass(&self) -> bool {
        match self {
            Fault::Status(status) => *status >= 500 || matches!(status, 408 | 425 | 429),
            Fault::Transport(error) => !matches!(
                error,
                ureq::Error::BadUri(_) | ureq::Error::Http(_) | ureq::Error::InvalidProxyUrl
            ),
            Fault::TooLong(_) => false,
            Fault::Resume | Fault::Ended { .. } | Fault::Receive(_) => true,
        }
    }
}

/// A file being received.
pub(super) struct Answer {
    /// Offset in the file of the body's first byte.
    pub(super) start: u64,
    /// Bytes that the body announces, if it does.
    pub(super) length: Option<u64>,
    /// The body.
    pub(super) body: Box<dyn Read>,
}

/// A client that keeps connections open between the files of a mirror.
pub(super) struct Http {
    agent: ureq::Agent,
}

impl Http {
    pub(super) fn new(patience: &Patience) -> Self {
        let config = ureq::Agent::config_builder()
            .timeout_resolve(Some(patience.connect))
            .timeout_connect(Some(patience.connect))
            .timeout_recv_response(Some(patience.stall))
            .timeout_per_read(Some(patience.stall))
            .timeout_per_write(Some(patience.stall))
            .http_status_as_error(false)
            .user_agent(concat!("footbridge-imagegen/", env!("CARGO_PKG_VERSION")))
            .build();
        Http {
            agent: config.new_agent(),
        }
    }

    /// Asks for a file, from an offset on if that is not 0. The answer may begin at 0 all the same.
    pub(super) fn open(&self, url: &str, offset: u64) -> Result<Answer, Fault> {
        let mut request = self.agent.get(url);
        if offset > 0 {
            request = request.header("Range", format!("bytes={offset}-"));
        }
        let response = request.call().map_err(Fault::Transport)?;
        let start = match response.status().as_u16() {
            200 => 0,
            206 if offset > 0 => {
                let range = response.headers().get("Content-Range");
                let start = range
                    .and_then(|value| value.to_str().ok())
                    .and_then(range_start);
                start
                    .filter(|start| *start == offset)
                    .ok_or(Fault::Resume)?
            }
            416 if offset > 0 => return Err(Fault::Resume),
            status => return Err(Fault::Status(status)),
        };
        let body = response.into_body();
        Ok(Answer {
            start,
            length: body.content_length(),
            body: Box::new(body.into_reader()),
        })
    }
}

/// Parses the first offset of `bytes 100-199/200`.
fn range_start(text: &str) -> Option<u64> {
    text.strip_prefix("bytes ")?.split_once('-')?.0.parse().ok()
}
