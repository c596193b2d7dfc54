//! Bytes to values and back: Ethernet, ARP, IPv4/UDP and DHCP.
//!
//! Decoders take what any peer may send and never panic; each says why it refused, so that the engine can count it. Nothing
//! here knows policy: whether a well-formed packet is welcome is the engine's question.

pub mod arp;
pub mod dhcp;
pub mod ethernet;
pub mod udp;
