//! The integration tests of imagegen, one binary.
