//! What is to be built, decided without touching the world: values in, values out.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod disk;
