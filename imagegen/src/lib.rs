//! Footbridge's image builder: [`plan::plan`] decides what an image is, [`make::image::make_image`] builds it.
//!
//! ```text
//! Board + Site + Overlays + Resolution --plan--> Plan --make_image--> .img
//!                            packages' files + agent ---^
//! ```
//!
//! Nothing here prints, runs a program or needs root. `plan` does no I/O; the network is in `make::fetch` alone.

pub mod agent;
pub mod board;
mod calendar;
pub mod card;
pub mod catalogue;
pub mod changelog;
pub mod credentials;
mod deb822;
pub mod device_tree;
pub mod fleet;
pub mod index;
pub mod inspect;
pub mod lock;
pub mod make;
pub mod mbr;
pub mod mirror;
pub mod overlays;
pub mod part;
pub mod plan;
pub mod recipe;
pub mod relation;
pub mod resolve;
pub mod sbom;
pub mod sha256;
pub mod shell;
pub mod site;
pub mod tree;
