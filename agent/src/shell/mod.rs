//! The acting half: sockets, netlink, sysctls, the service manager and the one loop that joins them to the engine.
//!
//! Nothing here decides what the bridge does. `event_loop` turns what happens into `Input`s and performs `Action`s; each other
//! file is one thing of the outside world.

pub(crate) mod clients;
pub(crate) mod device;
pub mod driver;
pub mod event_loop;
pub(crate) mod fleet_socket;
pub(crate) mod kernel_message;
pub(crate) mod ledger;
pub mod logging;
pub(crate) mod netlink;
pub(crate) mod packet_socket;
pub(crate) mod port67;
pub(crate) mod radio;
pub mod run_dir;
pub(crate) mod service;
pub(crate) mod signals;
pub(crate) mod socket_filter;
pub(crate) mod socket_option;
pub(crate) mod start_pages;
pub mod status;
pub(crate) mod sysctl;
pub(crate) mod traffic_socket;
pub(crate) mod world;
