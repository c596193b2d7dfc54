//! Many wired hosts played by one thread: each has an address and a hardware address of its own, answers ARP and echo requests
//! as any host does, and never speaks first. A thousand real network stacks would measure themselves.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::rig::{Rig, host};
use super::wire::{Arp, BROADCAST, ECHO_REPLY, ECHO_REQUEST, Echo, Mac, REPLY, REQUEST, Station};

/// The hosts; they leave with the value.
pub(crate) struct Crowd {
    leaving: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Crowd {
    /// Puts hosts 0 to `size` on the wire.
    pub(crate) fn gather(rig: &Rig, size: u32) -> Result<Crowd> {
        let mut station = Station::open(&rig.hosts, "c0")?;
        let leaving = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&leaving);
        let thread = std::thread::spawn(move || {
            while !told.load(Ordering::Relaxed) {
                let soon = Instant::now() + Duration::from_millis(50);
                let answer = station
                    .await_frame(soon, |frame| Some(answer(frame, size)))?
                    .flatten();
                if let Some(answer) = answer {
                    station.send(&answer)?;
                }
            }
            Ok(())
        });
        Ok(Crowd {
            leaving,
            thread: Some(thread),
        })
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.leaving.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn mac_of(ip: Ipv4Addr) -> Mac {
    let [_, _, c, d] = ip.octets();
    [2, 0xcc, 0, 0, c, d]
}

/// Returns what the host the frame is for says to it.
fn answer(frame: &[u8], size: u32) -> Option<Vec<u8>> {
    let is_ours =
        |ip: Ipv4Addr| (u32::from(host(0))..u32::from(host(size))).contains(&u32::from(ip));
    let to: Mac = frame.get(..6)?.try_into().ok()?;
    let from: Mac = frame.get(6..12)?.try_into().ok()?;
    // What the hosts themselves said.
    if from[1] == 0xcc {
        return None;
    }
    if let Some(arp) = Arp::parse(frame) {
        let asked = arp.operation == REQUEST && is_ours(arp.tpa) && arp.spa != arp.tpa;
        let heard = to == BROADCAST || to == mac_of(arp.tpa);
        return (asked && heard).then(|| {
            let sha = mac_of(arp.tpa);
            let reply = Arp {
                operation: REPLY,
                sha,
                spa: arp.tpa,
                tha: arp.sha,
                tpa: arp.spa,
            };
            reply.frame(arp.sha)
        });
    }
    let echo = Echo::parse(frame)?;
    let asked = echo.kind == ECHO_REQUEST && is_ours(echo.to) && to == mac_of(echo.to);
    asked.then(|| {
        let reply = Echo {
            kind: ECHO_REPLY,
            from: echo.to,
            to: echo.from,
        };
        reply.frame(from, to)
    })
}
