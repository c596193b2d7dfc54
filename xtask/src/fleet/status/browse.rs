//! Multicast DNS, by a library: which devices there are in the networks of this machine (RFC 6762, 6763).
//!
//! What is found is an address to ask at, and the name of the host there: one that shares its name with another machine took another.

use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::sync::mpsc::{SendError, Sender};
use std::thread;
use std::time::Duration;

use mdns_sd::{HostnameResolutionEvent, IfKind, ScopedIp, ServiceDaemon, ServiceEvent};

use super::ask::{STATUS_PORT, plain};
use super::search::Event;

const SERVICE: &str = "_footbridge._tcp.local.";

/// A search that goes on until it is dropped.
pub struct Browser(ServiceDaemon);

impl Browser {
    /// Begins to look for all devices, and tells where they are.
    pub fn start(events: &Sender<Event>) -> Result<Self, mdns_sd::Error> {
        let daemon = ServiceDaemon::new()?;
        // Devices have IPv4 addresses only.
        daemon.disable_interface(IfKind::IPv6)?;
        let found = daemon.browse(SERVICE)?;
        let events = events.clone();
        thread::spawn(move || {
            for event in found {
                let ServiceEvent::ServiceResolved(service) = event else {
                    continue;
                };
                // All devices have the same; whoever says another means somebody else's service.
                if service.port != STATUS_PORT {
                    continue;
                }
                let addresses = service.addresses.iter().map(ScopedIp::to_ip_addr);
                if tell(&events, addresses, &service.host).is_err() {
                    return;
                }
            }
        });
        Ok(Browser(daemon))
    }

    /// Looks for a host by its name as well.
    pub fn look_for(&self, hostname: &str, patience: Duration, events: &Sender<Event>) {
        let patience = u64::try_from(patience.as_millis()).ok();
        let Ok(found) = self
            .0
            .resolve_hostname(&format!("{hostname}.local."), patience)
        else {
            return;
        };
        let events = events.clone();
        thread::spawn(move || {
            for event in found {
                let HostnameResolutionEvent::AddressesFound(host, addresses) = event else {
                    continue;
                };
                let addresses = addresses.iter().map(ScopedIp::to_ip_addr);
                if tell(&events, addresses, &host).is_err() {
                    return;
                }
            }
        });
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The program ends soon in any case.
        let _ = self.0.shutdown();
    }
}

/// Tells where a host is.
fn tell(
    events: &Sender<Event>,
    addresses: impl Iterator<Item = IpAddr>,
    host: &str,
) -> Result<(), SendError<Event>> {
    let host = host.trim_end_matches('.');
    let host = plain(host.strip_suffix(".local").unwrap_or(host));
    for address in addresses.filter_map(neighbour) {
        let at = SocketAddrV4::new(address, STATUS_PORT);
        events.send(Event::Found(at, Some(host.clone())))?;
    }
    Ok(())
}

/// Returns an address that another machine can have: who answers on the network sends nobody to this machine's own services.
fn neighbour(address: IpAddr) -> Option<Ipv4Addr> {
    let IpAddr::V4(address) = address else {
        return None;
    };
    let nobodys = address.is_loopback()
        || address.is_unspecified()
        || address.is_multicast()
        || address.is_broadcast();
    (!nobodys).then_some(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_sent_to_this_machine() {
        for (address, asked) in [
            ("10.0.0.11", true),
            ("169.254.7.7", true),
            ("127.0.0.1", false),
            ("0.0.0.0", false),
            ("224.0.0.251", false),
            ("255.255.255.255", false),
            ("fe80::1", false),
        ] {
            assert_eq!(
                neighbour(address.parse().unwrap()).is_some(),
                asked,
                "{address}"
            );
        }
    }
}
