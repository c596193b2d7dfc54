//! Bytes to values and back: Ethernet, ARP, IPv4, UDP, DHCP, discovery, DNS and the loop guard's probes.
//!
//! Decoders take what any peer may send and never panic; each says why it refused, so that the engine can count it. Nothing
//! here knows policy: whether a well-formed packet is welcome is the engine's question.

pub mod arp;
pub mod dhcp;
pub mod dhcp_patch;
pub mod discovery;
pub mod dns;
pub mod ethernet;
pub mod ipv4;
pub mod loop_probe;
pub mod mdns;
pub mod udp;
