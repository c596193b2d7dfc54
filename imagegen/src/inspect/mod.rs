//! Reading what a finished image holds, as the board's firmware would: an emulator and the tests need it, the builder does not.
//!
//! The image may come from anywhere; these readers are bounded and answer garbage with an error.

pub mod config_txt;
pub mod fat;
