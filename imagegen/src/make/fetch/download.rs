//! One file from the mirror into the cache: looked up, else received in as many attempts as it takes, checked, and only then named.

use std::io::Read;
use std::path::{Path, PathBuf};

use super::Progress;
use super::error::FetchError;
use super::http::{Fault, Http, Patience};
use super::store::{Partial, Store};
use crate::make::release::ListedFile;
use crate::mirror::without_password;

/// No `InRelease` file of Debian comes near this size.
const IN_RELEASE_MAX: u64 = 4 << 20;

/// So many new bytes make an attempt count as progress.
const PROGRESS_MIN: u64 = 1 << 20;

/// A file that a signed list vouches for.
pub(super) struct Wanted {
    /// What it is, for messages.
    pub(super) what: String,
    /// Where the mirror has it.
    pub(super) url: String,
    /// What it must be.
    pub(super) listed: ListedFile,
}

/// What downloads need; shared by those that run at the same time.
pub(super) struct Downloader<'a> {
    http: Http,
    store: Store,
    cache: &'a Path,
    offline: bool,
    patience: Patience,
    progress: &'a dyn Progress,
}

impl<'a> Downloader<'a> {
    pub(super) fn new(
        cache: &'a Path,
        offline: bool,
        patience: Patience,
        progress: &'a dyn Progress,
    ) -> Self {
        Downloader {
            http: Http::new(&patience),
            store: Store::new(cache),
            cache,
            offline,
            patience,
            progress,
        }
    }

    /// Returns the path of a file in the cache, fetching it if it is not there.
    pub(super) fn obtain(&self, wanted: &Wanted) -> Result<PathBuf, FetchError> {
        loop {
            if let Some(path) = self.store.lookup(wanted.listed)? {
                self.progress.advanced(wanted.listed.size);
                return Ok(path);
            }
            if self.offline {
                return Err(self.missing(&wanted.what));
            }
            let Some(mut partial) = self.store.begin(wanted.listed)? else {
                continue;
            };
            return match self.download(wanted, &mut partial) {
                Ok(()) => Ok(partial.commit()?),
                Err(error @ (FetchError::Size { .. } | FetchError::Digest { .. })) => {
                    partial.discard()?;
                    Err(error)
                }
                Err(error) => {
                    // A part that came is kept for the next attempt; an empty file is good for nothing.
                    if partial.length() == 0 {
                        partial.discard()?;
                    }
                    Err(error)
                }
            };
        }
    }

    /// Reads an `InRelease` file from the mirror. `cached` tells the user's way out if that fails.
    pub(super) fn read_release(
        &self,
        what: &str,
        url: &str,
        cached: bool,
    ) -> Result<Vec<u8>, FetchError> {
        let mut failures = 0;
        loop {
            let fault = match self.read_bounded(url) {
                Ok(bytes) => {
                    self.progress.advanced(bytes.len() as u64);
                    return Ok(bytes);
                }
                Err(fault) => fault,
            };
            failures += 1;
            if !fault.may_pass() || failures >= self.patience.attempts {
                return Err(network(what, url, failures, cached, fault));
            }
            self.pause(what, failures, &fault);
        }
    }

    /// Tells that something is not in the cache and may not be fetched.
    pub(super) fn missing(&self, what: &str) -> FetchError {
        FetchError::Offline {
            what: what.to_owned(),
            cache: self.cache.to_owned(),
        }
    }

    /// Receives a file to its end. A mirror that can resume gets as many attempts as it needs, so long as each brings the file forward.
    fn download(&self, wanted: &Wanted, partial: &mut Partial) -> Result<(), FetchError> {
        let mut told = 0;
        let mut failures = 0;
        loop {
            let before = partial.length();
            let fault = match self.receive(wanted, partial, &mut told)? {
                Ok(()) if partial.sha256() == wanted.listed.sha256 => return Ok(()),
                Ok(()) if before == 0 => return Err(wrong_digest(wanted, partial)),
                Ok(()) => {
                    // What an earlier attempt left may be at fault: once more from the start.
                    partial.restart()?;
                    continue;
                }
                Err(fault) => fault,
            };
            let progress = partial.length() >= before.saturating_add(PROGRESS_MIN);
            failures = if progress { 1 } else { failures + 1 };
            if !fault.may_pass() || failures >= self.patience.attempts {
                return Err(network(&wanted.what, &wanted.url, failures, false, fault));
            }
            self.pause(&wanted.what, failures, &fault);
        }
    }

    /// One attempt; the outer error is final, the inner one may pass.
    fn receive(
        &self,
        wanted: &Wanted,
        partial: &mut Partial,
        told: &mut u64,
    ) -> Result<Result<(), Fault>, FetchError> {
        let size = wanted.listed.size;
        let mut answer = match self.http.open(&wanted.url, partial.length()) {
            Ok(answer) => answer,
            Err(fault) => {
                if matches!(fault, Fault::Resume) {
                    partial.restart()?;
                }
                return Ok(Err(fault));
            }
        };
        if answer.start != partial.length() {
            partial.restart()?;
        }
        let announced = answer
            .length
            .map(|length| answer.start.saturating_add(length));
        if let Some(announced) = announced.filter(|announced| *announced != size) {
            return Err(wrong_size(wanted, announced.to_string()));
        }
        let mut buffer = vec![0; 64 << 10];
        loop {
            let count = match answer.body.read(&mut buffer) {
                Ok(0) if partial.length() == size => return Ok(Ok(())),
                Ok(0) => {
                    let received = partial.length();
                    return Ok(Err(Fault::Ended { received, size }));
                }
                Ok(count) => count,
                Err(error) => return Ok(Err(Fault::Receive(error))),
            };
            if partial.length() + count as u64 > size {
                return Err(wrong_size(wanted, format!("more than {size}")));
            }
            partial.write(&buffer[..count])?;
            // What is received a second time, after a restart, is no progress.
            let length = partial.length();
            self.progress.advanced(length.saturating_sub(*told));
            *told = length.max(*told);
        }
    }

    fn read_bounded(&self, url: &str) -> Result<Vec<u8>, Fault> {
        let mut bytes = Vec::new();
        let body = self.http.open(url, 0)?.body;
        body.take(IN_RELEASE_MAX + 1)
            .read_to_end(&mut bytes)
            .map_err(Fault::Receive)?;
        if bytes.len() as u64 > IN_RELEASE_MAX {
            return Err(Fault::TooLong(IN_RELEASE_MAX));
        }
        Ok(bytes)
    }

    fn pause(&self, what: &str, failures: u32, fault: &Fault) {
        tracing::warn!(what, failures, %fault, "fetching again");
        let pause = self.patience.pause;
        // A mirror does not say when it is well again: there is no condition to wait for, only time to give it.
        std::thread::sleep(pause.saturating_mul(2_u32.saturating_pow(failures - 1)));
    }
}

fn network(what: &str, url: &str, attempts: u32, cached: bool, source: Fault) -> FetchError {
    FetchError::Network {
        what: what.to_owned(),
        url: without_password(url),
        attempts,
        cached,
        source,
    }
}

fn wrong_size(wanted: &Wanted, found: String) -> FetchError {
    FetchError::Size {
        what: wanted.what.clone(),
        url: without_password(&wanted.url),
        size: wanted.listed.size,
        found,
    }
}

fn wrong_digest(wanted: &Wanted, partial: &Partial) -> FetchError {
    FetchError::Digest {
        what: wanted.what.clone(),
        url: without_password(&wanted.url),
        sha256: wanted.listed.sha256,
        found: partial.sha256(),
    }
}
