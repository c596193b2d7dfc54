//! What a process holds.

use std::fs;

/// A process at one moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Gauge {
    pub(super) resident_kib: u64,
    #[expect(dead_code, reason = "printed")]
    pub(super) proportional_kib: u64,
    pub(super) descriptors: usize,
}

impl Gauge {
    pub(super) fn read(process: u32) -> Gauge {
        let value = |file: &str, key: &str| {
            let text = fs::read_to_string(format!("/proc/{process}/{file}")).unwrap();
            let line = text.lines().find_map(|line| line.strip_prefix(key));
            let number = line.unwrap().split_whitespace().next().unwrap();
            number.parse().unwrap()
        };
        Gauge {
            resident_kib: value("status", "VmRSS:"),
            proportional_kib: value("smaps_rollup", "Pss:"),
            descriptors: fs::read_dir(format!("/proc/{process}/fd")).unwrap().count(),
        }
    }
}
