//! The small values everything else is written in: hardware addresses, interface indices and the two sides of the bridge.
//!
//! Both interfaces carry the same IPv4 address while bridging, so nothing may tell the sides apart by address; `Side` and
//! `IfIndex` are how frames, hosts and kernel state name an interface.

use std::fmt;

pub use pnet_base::MacAddr;

/// Index of a network interface in its network namespace (never 0 in the kernel).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
pub struct IfIndex(pub u32);

impl fmt::Display for IfIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One of the two sides of the bridge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Side {
    /// The Ethernet port whose hosts are to become members of the uplink's network.
    Wired,
    /// The interface that is a station (or an ordinary member) of the network.
    Uplink,
}

impl Side {
    /// Returns the side a frame from this one would cross to.
    pub fn other(self) -> Side {
        match self {
            Side::Wired => Side::Uplink,
            Side::Uplink => Side::Wired,
        }
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Side::Wired => "wired",
            Side::Uplink => "uplink",
        })
    }
}
