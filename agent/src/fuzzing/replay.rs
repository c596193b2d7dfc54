//! Runs every seed, and whatever captures the caller names, through the targets.

use std::fs;
use std::path::{Path, PathBuf};

use super::{TARGETS, run};

/// A folder of captures (pcap) to run as well, such as those other people's decoders once stumbled over.
const CAPTURES: &str = "FOOTBRIDGE_CAPTURES";

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

#[test]
fn every_seed_of_every_target() {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds");
    for target in TARGETS {
        let seeds = files(&seeds.join(target.name));
        assert!(!seeds.is_empty(), "{} has no seeds", target.name);
        for seed in seeds {
            (target.run)(&fs::read(&seed).unwrap());
        }
        (target.run)(&[]);
    }
}

#[test]
fn every_frame_of_the_captures_named() {
    let Some(folder) = std::env::var_os(CAPTURES) else {
        return;
    };
    let mut frames = 0;
    for capture in files(Path::new(&folder)) {
        for frame in frames_of(&fs::read(capture).unwrap()) {
            for name in ["ethernet", "arp", "udp", "discovery"] {
                run(name, &frame);
            }
            run("dhcp", frame.get(42..).unwrap_or_default());
            run("engine", &as_story(&frame));
            frames += 1;
        }
    }
    assert!(frames > 0, "no frame in {}", Path::new(&folder).display());
    eprintln!("MEASURED captured frames replayed: {frames}");
}

/// Returns the frames of a pcap file of either byte order; what is cut short ends it.
fn frames_of(capture: &[u8]) -> Vec<Vec<u8>> {
    let number = |at: usize| -> Option<usize> {
        let bytes = <[u8; 4]>::try_from(capture.get(at..at + 4)?).unwrap();
        let big = matches!(capture[..4], [0xa1, 0xb2, 0xc3, 0xd4 | 0x4d]);
        let number = if big {
            u32::from_be_bytes(bytes)
        } else {
            u32::from_le_bytes(bytes)
        };
        usize::try_from(number).ok()
    };
    let (mut frames, mut at) = (Vec::new(), 24);
    while let Some(length) = number(at + 8)
        && let Some(frame) = capture.get(at + 16..at + 16 + length)
    {
        frames.push(frame.to_vec());
        at += 16 + length;
    }
    frames
}

/// The frame on either side, as a step of a story, between two moments.
fn as_story(frame: &[u8]) -> Vec<u8> {
    let mut story = vec![0, 0, 0];
    for side in [0, 1] {
        story.extend([8, side, 4, 0]);
        story.extend((frame.len() as u16).to_be_bytes());
        story.extend(frame);
        story.push(14);
    }
    story
}
