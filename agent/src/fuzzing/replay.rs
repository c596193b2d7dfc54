//! Runs what is written down through the targets: every seed, every malformed frame, and whatever captures the caller names.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use crate::wire::{arp, dhcp, ethernet, udp};

use super::{TARGETS, run};

/// A folder of captures (pcap) to run as well, such as those other people's decoders once stumbled over.
const CAPTURES: &str = "FOOTBRIDGE_CAPTURES";
/// Frames that the engine is told of in one story, on either side, with the time between them.
const FRAMES_OF_A_STORY: usize = 64;

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz")
        .join(name)
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

#[test]
fn every_seed_of_every_target() {
    for target in TARGETS {
        let seeds = files(&folder("seeds").join(target.name));
        assert!(!seeds.is_empty(), "{} has no seeds", target.name);
        for seed in seeds {
            (target.run)(&fs::read(&seed).unwrap());
        }
        (target.run)(&[]);
    }
}

#[test]
fn every_malformed_frame_and_every_frame_of_the_captures_named() {
    let text = fs::read_to_string(folder("malformed.txt")).unwrap();
    let frames = parse_frames(&text);
    assert!(frames.len() > 80, "{} frames", frames.len());
    let mut seen = Seen::default();
    seen.replay(&frames);
    eprintln!("MEASURED malformed: {seen}");
    let Some(named) = std::env::var_os(CAPTURES) else {
        return;
    };
    let mut seen = Seen::default();
    for capture in files(Path::new(&named)) {
        match frames_of(&fs::read(&capture).unwrap()) {
            Some(frames) => seen.replay(&frames),
            None => eprintln!("{} is no pcap file", capture.display()),
        }
    }
    assert!(
        seen.frames > 0,
        "no frame in {}",
        Path::new(&named).display()
    );
    eprintln!("MEASURED captures: {seen}");
}

/// What went by.
#[derive(Debug, Default)]
struct Seen {
    captures: usize,
    frames: usize,
    arp: Judged,
    dhcp: Judged,
}

/// How many of a kind there were, and how many of them a decoder took.
#[derive(Debug, Default)]
struct Judged {
    all: usize,
    accepted: usize,
}

impl Judged {
    fn count(&mut self, accepted: bool) {
        self.all += 1;
        self.accepted += usize::from(accepted);
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Seen {
            captures,
            frames,
            arp,
            dhcp,
        } = self;
        write!(
            f,
            "{frames} frames of {captures} files; ARP {} of which {} were accepted, DHCP {} of which {}",
            arp.all, arp.accepted, dhcp.all, dhcp.accepted
        )
    }
}

impl Seen {
    /// Runs frames through every decoder they may concern, and in the order they came through the engine.
    fn replay(&mut self, frames: &[Vec<u8>]) {
        self.captures += 1;
        for frame in frames {
            for name in ["ethernet", "arp", "udp", "discovery", "loop-probe"] {
                run(name, frame);
            }
            // Also where the headers before it say that it is none.
            run("dhcp", frame.get(42..).unwrap_or_default());
            self.judge(frame);
        }
        for frames in frames.chunks(FRAMES_OF_A_STORY) {
            run("engine", &as_story(frames));
        }
    }

    fn judge(&mut self, bytes: &[u8]) {
        self.frames += 1;
        let Ok(frame) = ethernet::decode(bytes) else {
            return;
        };
        match frame.ether_type {
            ethernet::TYPE_ARP => self.arp.count(arp::decode(&frame).is_ok()),
            ethernet::TYPE_IPV4 => {
                let Ok(datagram) = udp::decode(&frame) else {
                    return;
                };
                if [67, 68].contains(&datagram.destination.port()) {
                    self.dhcp.count(dhcp::decode(datagram.payload).is_ok());
                }
            }
            _ => {}
        }
    }
}

/// Parses lines of `NAME: BYTES`, in hexadecimal, where `00*16` is sixteen zeros.
fn parse_frames(text: &str) -> Vec<Vec<u8>> {
    let lines = text
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    let frame = |line: &str| {
        let (_, words) = line.split_once(": ").unwrap();
        words.split(' ').flat_map(parse_word).collect()
    };
    lines.map(frame).collect()
}

fn parse_word(word: &str) -> Vec<u8> {
    let (digits, times) = word.split_once('*').unwrap_or((word, "1"));
    assert!(digits.len().is_multiple_of(2), "half a byte in {word}");
    let bytes = (0..digits.len()).step_by(2);
    let bytes = bytes.map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap());
    bytes.collect::<Vec<u8>>().repeat(times.parse().unwrap())
}

/// Returns the frames of a pcap file of either byte order and resolution; what is cut short ends it.
fn frames_of(capture: &[u8]) -> Option<Vec<Vec<u8>>> {
    let big = match *capture.first_chunk::<4>()? {
        [0xa1, 0xb2, 0xc3, 0xd4] | [0xa1, 0xb2, 0x3c, 0x4d] => true,
        [0xd4, 0xc3, 0xb2, 0xa1] | [0x4d, 0x3c, 0xb2, 0xa1] => false,
        _ => return None,
    };
    let number = |at: usize| -> Option<usize> {
        let bytes = *capture.get(at..)?.first_chunk::<4>()?;
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
    Some(frames)
}

/// The frames as steps of a story, each on either side, with the time until the engine wants to be woken between them.
fn as_story(frames: &[Vec<u8>]) -> Vec<u8> {
    let mut story = vec![0, 0, 0];
    for frame in frames {
        // What is longer than a story's frames can be is longer than the agent reads.
        let length = u16::try_from(frame.len()).unwrap_or(u16::MAX);
        for side in [0, 1] {
            story.extend([8, side, 4, 0]);
            story.extend(length.to_be_bytes());
            story.extend(&frame[..usize::from(length)]);
        }
        story.push(14);
    }
    story
}
