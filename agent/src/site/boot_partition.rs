//! Takes over what Raspberry Pi Imager left on the boot partition: the settings are written into `site/`, and then its file is erased.
//!
//! The power may go at any moment. Until each file of `site/` is on the card, Imager's file is whole, and the next start begins anew; from
//! then on it is not needed. It is overwritten with zeros before it is removed, its first sector first: a file that begins with a zero is
//! one that was taken over. (FAT writes a sector wholly or not at all, and a file begins with a sector.)

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use super::fault::Finding;
use super::preseed::{self, PRESEED};
use super::{SiteFiles, text};
use crate::plain_file::read_plain_file;

/// Bytes of a file that what replaces it is written over; a longer one is removed.
const LONGEST_OVERWRITTEN: u64 = 1 << 20;

/// Longest file of Imager's that is read, in bytes.
const LONGEST: usize = 64 << 10;
/// What a card writes wholly or not at all, in bytes.
const SECTOR: u64 = 512;

/// What is done to the boot partition. When a step returns, it is on the card.
pub(super) trait Partition {
    /// Returns what a file holds, if it is there.
    fn read(&self, path: &str) -> io::Result<Option<Vec<u8>>>;
    /// Has a file hold these bytes. A cut leaves anything of it.
    fn replace(&mut self, path: &str, bytes: &[u8]) -> io::Result<()>;
    /// Writes zeros over some bytes of a file, in place.
    fn blank(&mut self, path: &str, from: u64, count: u64) -> io::Result<()>;
    /// Removes a file.
    fn remove(&mut self, path: &str) -> io::Result<()>;
}

/// What came of it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct TakenOver {
    pub(super) findings: Vec<Finding>,
    /// What is said of it, where it was there.
    pub(super) note: Option<String>,
}

/// Takes over Imager's file, if there is one: into `site`, and onto the partition where its files are others there.
pub(super) fn take_over(
    partition: &mut impl Partition,
    site: &mut SiteFiles,
    ssh_server: bool,
) -> TakenOver {
    let bytes = match partition.read(PRESEED) {
        Ok(None) => return TakenOver::default(),
        Ok(Some(bytes)) => bytes,
        Err(error) => {
            return TakenOver {
                findings: vec![Finding::of_file(
                    format!("it cannot be read: {error}"),
                    "nothing of it is used",
                    "write the card anew, or fill site/ in with a text editor",
                )],
                note: None,
            };
        }
    };
    let length = bytes.len() as u64;
    if bytes.first().is_none_or(|first| *first == 0) {
        let findings = erase(partition, length).err().map(not_erased);
        return TakenOver {
            findings: findings.into_iter().collect(),
            note: None,
        };
    }
    let preseed = match preseed::parse(&text::mend(&bytes), ssh_server) {
        Ok(preseed) => preseed,
        Err(findings) => {
            return TakenOver {
                findings,
                note: None,
            };
        }
    };
    let mut findings = preseed.findings;
    let note = note(preseed.files.keys(), &preseed.passed_over);
    match keep(partition, site, preseed.files) {
        Ok(()) => findings.extend(erase(partition, length).err().map(not_erased)),
        Err(error) => findings.push(Finding::of_file(
            format!("its settings cannot be written to the card: {error}"),
            "they count until the power is off, and it stays where it is",
            "see whether the card is locked or full",
        )),
    }
    TakenOver {
        findings,
        note: Some(note),
    }
}

/// Writes the files into `site/`. They count for this start even if the card does not take them.
fn keep(
    partition: &mut impl Partition,
    site: &mut SiteFiles,
    files: impl IntoIterator<Item = (String, Vec<u8>)>,
) -> io::Result<()> {
    let mut kept = Ok(());
    for (name, bytes) in files {
        if !matches!(site.get(&name), Some(Ok(found)) if *found == bytes) {
            let written = partition.replace(&format!("site/{name}"), &bytes);
            kept = kept.and(written);
        }
        site.retain(|found, _| !found.eq_ignore_ascii_case(&name));
        site.insert(name, Ok(bytes));
    }
    kept
}

fn erase(partition: &mut impl Partition, length: u64) -> io::Result<()> {
    let first = length.min(SECTOR);
    partition.blank(PRESEED, 0, first)?;
    if length > first {
        partition.blank(PRESEED, first, length - first)?;
    }
    partition.remove(PRESEED)
}

fn not_erased(error: io::Error) -> Finding {
    Finding::of_file(
        format!("it cannot be erased: {error}"),
        "what it says stays readable on the card",
        "delete it from the boot partition; its settings are in site/",
    )
}

fn note<'a>(taken: impl Iterator<Item = &'a String>, passed_over: &[String]) -> String {
    let taken: Vec<&str> = taken.map(String::as_str).collect();
    let taken = match taken.is_empty() {
        true => "nothing of it goes into site/".to_owned(),
        false => format!("taken over into site/: {}", taken.join(", ")),
    };
    match passed_over.is_empty() {
        true => format!("{PRESEED}: {taken}"),
        false => format!(
            "{PRESEED}: {taken}; without a meaning here: {}",
            passed_over.join(", ")
        ),
    }
}

/// The partition where it is mounted.
#[derive(Debug)]
pub(super) struct Mounted(PathBuf);

impl Mounted {
    pub(super) fn at(path: &Path) -> Mounted {
        Mounted(path.to_owned())
    }

    /// Has what a directory says be on the card, too.
    fn sync_directory_of(&self, path: &Path) -> io::Result<()> {
        File::open(path.parent().unwrap_or(&self.0))?.sync_all()
    }
}

impl Partition for Mounted {
    fn read(&self, path: &str) -> io::Result<Option<Vec<u8>>> {
        match read_plain_file(&self.0.join(path), LONGEST) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// What the file held is written over where it lies, for it may have been a key. Emptied first, it would be written elsewhere, and the
    /// key would stay readable in clusters of nobody.
    fn replace(&mut self, path: &str, bytes: &[u8]) -> io::Result<()> {
        let path = self.0.join(path);
        fs::create_dir_all(path.parent().unwrap_or(&self.0))?;
        // No file as long as that was ever read, and overwriting it would take the start's time.
        if fs::metadata(&path).is_ok_and(|metadata| metadata.len() > LONGEST_OVERWRITTEN) {
            fs::remove_file(&path)?;
        }
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)?;
        let length = bytes.len() as u64;
        let rest = file.metadata()?.len().saturating_sub(length);
        file.write_all(bytes)?;
        io::copy(&mut io::Read::take(io::repeat(0), rest), &mut file)?;
        file.sync_all()?;
        file.set_len(length)?;
        file.sync_all()?;
        self.sync_directory_of(&path)
    }

    fn blank(&mut self, path: &str, from: u64, count: u64) -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).open(self.0.join(path))?;
        file.seek(SeekFrom::Start(from))?;
        io::copy(&mut io::Read::take(io::repeat(0), count), &mut file)?;
        file.flush()?;
        file.sync_all()
    }

    fn remove(&mut self, path: &str) -> io::Result<()> {
        let path = self.0.join(path);
        fs::remove_file(&path)?;
        self.sync_directory_of(&path)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// A partition whose power goes in the middle of a step.
    #[derive(Clone)]
    struct Cut {
        files: BTreeMap<String, Vec<u8>>,
        /// Steps until then.
        steps: usize,
        /// How many sectors of that step are written; none of those after it.
        sectors: Option<usize>,
    }

    impl Cut {
        /// Counts a step. Returns how many bytes of it are written where not all are, or none.
        fn step(&mut self) -> Result<(), Option<usize>> {
            match self.steps.checked_sub(1) {
                Some(left) => {
                    self.steps = left;
                    Ok(())
                }
                None => Err(self.sectors.take().map(|sectors| sectors * SECTOR as usize)),
            }
        }

        fn off() -> io::Error {
            io::Error::other("the power is off")
        }
    }

    impl Partition for Cut {
        fn read(&self, path: &str) -> io::Result<Option<Vec<u8>>> {
            Ok(self.files.get(path).cloned())
        }

        fn replace(&mut self, path: &str, bytes: &[u8]) -> io::Result<()> {
            let count = match self.step() {
                Ok(()) => bytes.len(),
                Err(Some(part)) => part.min(bytes.len()),
                Err(None) => return Err(Cut::off()),
            };
            self.files.insert(path.to_owned(), bytes[..count].to_vec());
            match self.sectors {
                Some(_) => Ok(()),
                None => Err(Cut::off()),
            }
        }

        fn blank(&mut self, path: &str, from: u64, count: u64) -> io::Result<()> {
            let count = match self.step() {
                Ok(()) => count as usize,
                Err(part) => part.unwrap_or(0).min(count as usize),
            };
            let file = self.files.get_mut(path).ok_or_else(Cut::off)?;
            file[from as usize..][..count].fill(0);
            match self.sectors {
                Some(_) => Ok(()),
                None => Err(Cut::off()),
            }
        }

        fn remove(&mut self, path: &str) -> io::Result<()> {
            self.step().map_err(|_| Cut::off())?;
            self.files.remove(path);
            Ok(())
        }
    }

    fn site_of(partition: &Cut) -> SiteFiles {
        let files = partition.files.iter();
        files
            .filter_map(|(path, bytes)| {
                let name = path.strip_prefix("site/")?;
                Some((name.to_owned(), Ok(bytes.clone())))
            })
            .collect()
    }

    fn start(partition: &mut Cut) -> (SiteFiles, TakenOver) {
        let mut site = site_of(partition);
        let taken = take_over(partition, &mut site, true);
        (site, taken)
    }

    fn card(preseed: &str) -> Cut {
        let file = |path: &str, text: &str| (path.to_owned(), text.as_bytes().to_vec());
        Cut {
            files: BTreeMap::from([
                file(PRESEED, preseed),
                file("site/hostname", "footbridge\n"),
                file("site/uplink.network", "[Match]\n"),
                file("site/wpa_supplicant.conf", &"# old\n".repeat(200)),
            ]),
            steps: usize::MAX,
            sectors: Some(0),
        }
    }

    fn preseed() -> String {
        // Several sectors, with what is secret in the last.
        let filler = "# x\n".repeat(300);
        format!(
            "config_version = \"1.0\"\n[system]\nhostname = \"attic\"\n{filler}[wlan]\nssid = \"home\"\npassword = \"a secret\"\n"
        )
    }

    #[test]
    fn the_settings_are_in_the_site_and_the_file_is_gone() {
        let mut partition = card(&preseed());
        let (site, taken) = start(&mut partition);
        assert_eq!(
            taken,
            TakenOver {
                findings: Vec::new(),
                note: Some(
                    "rpi-preseed.toml: taken over into site/: hostname, wpa_supplicant.conf"
                        .to_owned()
                ),
            }
        );
        assert_eq!(site, site_of(&partition));
        assert_eq!(partition.files["site/hostname"], b"attic\n");
        assert_eq!(partition.files["site/uplink.network"], b"[Match]\n");
        assert!(!partition.files.contains_key(PRESEED));
        // And there is nothing to do any more.
        assert_eq!(start(&mut partition).1, TakenOver::default());
    }

    #[test]
    fn a_cut_at_any_moment_leaves_the_file_or_the_settings() {
        let mut whole = card(&preseed());
        start(&mut whole);
        let wanted = whole.files;
        let mut cuts = 0;
        for sectors in 0..4 {
            for steps in 0.. {
                let mut partition = card(&preseed());
                (partition.steps, partition.sectors) = (steps, Some(sectors));
                let (site, _) = start(&mut partition);
                let done = !partition.files.contains_key(PRESEED);
                // This start has the settings in any case.
                assert_eq!(site["hostname"], Ok(b"attic\n".to_vec()));
                let left = partition.files.get(PRESEED);
                let is_whole = left.is_some_and(|left| left == preseed().as_bytes());
                let has_all = wanted
                    .iter()
                    .all(|(path, bytes)| partition.files.get(path) == Some(bytes));
                assert!(is_whole || has_all, "{steps} steps, {sectors} sectors");
                // The next start has power.
                (partition.steps, partition.sectors) = (usize::MAX, Some(0));
                let (site, _) = start(&mut partition);
                assert_eq!(partition.files, wanted, "{steps} steps, {sectors} sectors");
                assert_eq!(site, site_of(&partition));
                if done {
                    break;
                }
                cuts += 1;
            }
        }
        // Two files, two times zeros, one removal: each cut off four times.
        assert_eq!(cuts, 5 * 4);
    }

    #[test]
    fn what_is_wrong_stays_where_it_is() {
        let mut partition = card("[wlan]\nssid = \"home\n");
        let before = partition.files.clone();
        let (site, taken) = start(&mut partition);
        assert_eq!(partition.files, before);
        assert_eq!(site, site_of(&partition));
        assert_eq!(taken.findings[0].line, Some(2));
    }

    /// A bad key costs neither the network nor that the file, which holds the passphrase, is erased.
    #[test]
    fn what_is_no_ssh_key_is_told_and_the_file_is_gone() {
        let text = format!("{}[ssh]\nauthorized_keys = [\"no key\"]\n", preseed());
        let mut partition = card(&text);
        let (site, taken) = start(&mut partition);
        assert!(!partition.files.contains_key(PRESEED));
        assert_eq!(site["hostname"], Ok(b"attic\n".to_vec()));
        let networks = String::from_utf8(partition.files["site/wpa_supplicant.conf"].clone());
        assert!(networks.unwrap().contains("psk=\"a secret\""));
        assert!(!partition.files.contains_key("site/authorized_keys"));
        let lines: Vec<_> = taken.findings.iter().map(|told| told.line).collect();
        assert_eq!(lines, [Some(text.lines().count())]);
    }

    #[test]
    fn a_locked_card_has_the_settings_for_this_start() {
        let mut partition = card(&preseed());
        (partition.steps, partition.sectors) = (0, None);
        let (site, taken) = start(&mut partition);
        assert_eq!(site["hostname"], Ok(b"attic\n".to_vec()));
        assert_eq!(partition.files[PRESEED], preseed().as_bytes());
        let told = &taken.findings[0].what;
        assert!(told.contains("cannot be written to the card"), "{told}");
    }

    #[test]
    fn a_mounted_partition_does_each_step() {
        let dir = tempfile::tempdir().unwrap();
        let mut partition = Mounted::at(dir.path());
        assert_eq!(partition.read("site/hostname").unwrap(), None);
        partition.replace("site/hostname", b"longer\n").unwrap();
        partition.replace("site/hostname", b"attic\n").unwrap();
        partition.blank("site/hostname", 1, 2).unwrap();
        let read = partition.read("site/hostname").unwrap();
        assert_eq!(read.as_deref(), Some(&b"a\0\0ic\n"[..]));
        partition.remove("site/hostname").unwrap();
        assert_eq!(partition.read("site/hostname").unwrap(), None);
    }
}
