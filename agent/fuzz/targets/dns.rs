#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| footbridge_agent::fuzzing::run("dns", input));
