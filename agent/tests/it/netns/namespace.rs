//! A network namespace: what runs in it, and what is asked of it.

use std::fs::{self, File};
use std::os::fd::AsRawFd as _;
use std::process::{Child, Command, Output, Stdio};

use super::rig::{eventually, succeed, text_of, words};

/// A network namespace, held by a process that ends with the value.
pub(crate) struct Namespace(Child);

impl Namespace {
    pub(crate) fn hold() -> Namespace {
        let holder = Command::new("unshare")
            .args(["--net", "cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let own = fs::read_link("/proc/self/ns/net").unwrap();
        let namespace = format!("/proc/{}/ns/net", holder.id());
        eventually("a network namespace", || {
            fs::read_link(&namespace).is_ok_and(|other| other != own)
        });
        Namespace(holder)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net=/proc/{}/ns/net", self.pid()))
            .args(arguments);
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Does something inside the namespace, such as opening a socket that stays there.
    pub(crate) fn inside<T: Send>(&self, body: impl FnOnce() -> T + Send) -> T {
        let namespace = File::open(format!("/proc/{}/ns/net", self.pid())).unwrap();
        let enter = || {
            // SAFETY: the descriptor is open, and of the calling thread nothing but its network namespace changes.
            #[expect(unsafe_code, reason = "no safe wrapper enters a namespace")]
            let result = unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) };
            assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
            body()
        };
        std::thread::scope(|scope| scope.spawn(enter).join().unwrap())
    }

    pub(crate) fn ip(&self, arguments: &str) -> String {
        succeed(self.run(&words(&format!("ip {arguments}"))))
    }

    /// Whether one echo request is answered in time.
    pub(crate) fn pings(&self, address: &str) -> bool {
        self.run(&["busybox", "ping", "-c", "1", "-W", "2", address])
            .status
            .success()
    }

    /// Whether duplicate address detection on the interface finds the address in use.
    pub(crate) fn detects_duplicate(&self, interface: &str, address: &str) -> bool {
        let output = self.run(&[
            "arping", "-D", "-c", "3", "-w", "4", "-I", interface, address,
        ]);
        match output.status.code() {
            Some(0) => false,
            Some(1) => true,
            _ => panic!("arping: {}", text_of(&output)),
        }
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
