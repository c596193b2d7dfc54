//! A network namespace: made, entered by threads, gone with the last descriptor and process in it.

use std::fs::{self, File};
use std::process::Command;
use std::thread;

use anyhow::{Context as _, Result, bail};

use super::kernel;

/// Named by an open descriptor; no process has to hold it.
pub(crate) struct Namespace {
    file: File,
}

impl Namespace {
    /// Makes a namespace without IPv6, which would add frames at times of its own.
    pub(crate) fn create() -> Result<Namespace> {
        let made = thread::scope(|scope| {
            scope
                .spawn(|| -> Result<File> {
                    kernel::leave_network().context("while making a network namespace")?;
                    fs::write("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1").ok();
                    fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1").ok();
                    File::open("/proc/thread-self/ns/net").context("while opening a namespace")
                })
                .join()
        });
        let namespace = Namespace {
            file: made.expect("the thread does not panic")?,
        };
        namespace.ip(&["link set lo up"])?;
        Ok(namespace)
    }

    /// Runs `body` on a thread inside; sockets it opens and processes it starts belong there.
    pub(crate) fn inside<T: Send>(&self, body: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let result = thread::scope(|scope| {
            scope
                .spawn(|| {
                    kernel::enter_network(&self.file).context("while entering a namespace")?;
                    body()
                })
                .join()
        });
        match result {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }

    /// Returns a path `ip` takes for the namespace.
    pub(crate) fn path(&self) -> String {
        use std::os::fd::AsRawFd as _;
        format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd())
    }

    /// Returns what `/proc/PID/ns/net` of a process inside points at.
    pub(crate) fn identity(&self) -> Result<String> {
        let link = fs::read_link(self.path())?;
        Ok(link.display().to_string())
    }

    /// Runs lines of `ip`, all in one process.
    pub(crate) fn ip<L: AsRef<str> + Sync>(&self, lines: &[L]) -> Result<String> {
        let lines: Vec<&str> = lines.iter().map(AsRef::as_ref).collect();
        let text = lines.join("\n") + "\n";
        self.inside(|| {
            use std::io::Write as _;
            let mut child = Command::new("ip")
                .args(["-batch", "-"])
                .stdin(std::process::Stdio::piped())
                .stdout(std::process::Stdio::piped())
                .stderr(std::process::Stdio::piped())
                .spawn()
                .context("while starting ip")?;
            let mut input = child.stdin.take().expect("the input is piped");
            input.write_all(text.as_bytes())?;
            drop(input);
            let output = child.wait_with_output()?;
            if !output.status.success() {
                bail!(
                    "ip: {}in {text}",
                    String::from_utf8_lossy(&output.stderr).replace('\n', " ")
                );
            }
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        })
    }

    /// Returns how many frames an interface has sent.
    pub(crate) fn sent(&self, interface: &str) -> Result<u64> {
        let text = self.inside(|| Ok(fs::read_to_string("/proc/thread-self/net/dev")?))?;
        let counters = text
            .lines()
            .find_map(|line| line.trim().strip_prefix(interface)?.strip_prefix(':'))
            .with_context(|| format!("{interface} is not in net/dev"))?;
        let sent = counters.split_whitespace().nth(9);
        sent.and_then(|word| word.parse().ok())
            .with_context(|| format!("net/dev says {counters}"))
    }
}
