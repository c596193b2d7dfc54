//! What a board's boot loader would load, by its `config.txt`: firmware, kernel, device tree, initramfs and command line.
//!
//! Source: Raspberry Pi documentation, "config.txt" and "autoboot.txt". A line is `key=value` (`initramfs` and `include` have their values
//! after blanks), `#` starts a comment, the last value of a key counts. A filter such as `[pi3]` holds for the lines below it; one of
//! another kind combines with it, one of the same kind takes its place, `[all]` ends them all. What cannot be known from the card alone
//! (a monitor's name, the level of a pin) does not hold.
//!
//! Overlays, memory and clocks are no matter here.

use std::collections::BTreeMap;

use crate::inspect::model::{Loader, Model, Processor};

/// The boot loader reads no more of `autoboot.txt`.
pub const AUTOBOOT_MAX: usize = 512;

/// Files that include each other in a circle end here.
const INCLUDES_MAX: usize = 8;

/// A board that is switched on.
#[derive(Clone, Copy, Debug)]
pub struct Machine {
    /// What it is; none for a machine that is no Raspberry Pi and has 64 bits.
    pub model: Option<&'static Model>,
    /// Its serial number.
    pub serial: u32,
    /// Whether it was restarted to try another system once.
    pub tryboot: bool,
    /// The partition that it boots from.
    pub partition: u32,
}

/// What the boot loader was told to load; paths on the boot partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootChoice {
    /// `start*.elf`, where the card has it.
    pub start: Option<String>,
    /// What belongs to it.
    pub fixup: Option<String>,
    /// The kernel.
    pub kernel: String,
    /// The device trees that the model's revisions look for; the first alternative that is there, or the first.
    pub device_trees: Vec<String>,
    /// Initramfs archives, in the order they are put behind each other.
    pub initramfs: Vec<String>,
    /// The file with the kernel's command line.
    pub cmdline: String,
    /// Whether the kernel is started with 64 bits.
    pub is_64bit: bool,
}

impl Machine {
    /// A board of this model, started the usual way.
    #[must_use]
    pub fn of(model: Option<&'static Model>) -> Self {
        Self {
            model,
            serial: 0,
            tryboot: false,
            partition: 1,
        }
    }
}

/// Returns the partition that `autoboot.txt` sends a machine to.
#[must_use]
pub fn choose_partition(autoboot: &str, machine: &Machine) -> u32 {
    let settings = Settings::read(autoboot, machine, &|_| None);
    settings
        .get("boot_partition")
        .and_then(|value| value.parse().ok())
        .filter(|number| *number != 0)
        .unwrap_or(machine.partition)
}

/// Returns what a machine loads from a partition whose files `read` returns, without regard to case.
#[must_use]
pub fn choose_boot(read: &dyn Fn(&str) -> Option<String>, machine: &Machine) -> BootChoice {
    let autoboot = read("autoboot.txt").unwrap_or_default();
    let slots = Settings::read(&autoboot, machine, &|_| None).is_on("tryboot_a_b");
    let config = if machine.tryboot && !slots {
        "tryboot.txt"
    } else {
        "config.txt"
    };
    let settings = Settings::read(&read(config).unwrap_or_default(), machine, read);
    let is_64bit = is_64bit(&settings, machine);
    let exists = |path: &str| read(path).is_some();
    let kernel = settings.get("kernel").map_or_else(
        || default_kernel(machine, is_64bit, &exists).to_owned(),
        str::to_owned,
    );
    let prefix = prefix(&settings, machine, &kernel, &exists);
    let place = |name: &str| format!("{prefix}{name}");
    let (start, fixup) = firmware(&settings, machine);
    BootChoice {
        start,
        fixup,
        device_trees: device_trees(&settings, machine, &prefix, &exists),
        initramfs: initramfs(&settings, &kernel)
            .iter()
            .map(|name| place(name))
            .collect(),
        cmdline: place(settings.get("cmdline").unwrap_or("cmdline.txt")),
        kernel: place(&kernel),
        is_64bit,
    }
}

/// The kernels that the boot loader knows by name, and whether they have 64 bits.
const KNOWN_KERNELS: [(&str, bool); 5] = [
    ("kernel.img", false),
    ("kernel7.img", false),
    ("kernel7l.img", false),
    ("kernel8.img", true),
    ("kernel_2712.img", true),
];

fn is_64bit(settings: &Settings, machine: &Machine) -> bool {
    let Some(model) = machine.model else {
        return true;
    };
    let named = settings.get("kernel").and_then(|kernel| {
        KNOWN_KERNELS
            .iter()
            .find(|(name, _)| *name == kernel)
            .map(|(_, wide)| *wide)
    });
    let asked = settings.get("arm_64bit").map(|value| value != "0");
    match model.processor {
        Processor::Armv6 | Processor::Armv7 => false,
        Processor::Armv8Only => true,
        Processor::Armv8 => named
            .or(asked)
            .unwrap_or(model.loader == Loader::ChipAndCard),
    }
}

fn default_kernel(
    machine: &Machine,
    is_64bit: bool,
    exists: &dyn Fn(&str) -> bool,
) -> &'static str {
    match machine.model {
        Some(model) if model.loader == Loader::Chip && exists("kernel_2712.img") => {
            "kernel_2712.img"
        }
        _ if is_64bit => "kernel8.img",
        Some(model) if model.processor == Processor::Armv6 => "kernel.img",
        Some(model) if model.loader == Loader::ChipAndCard => "kernel7l.img",
        _ => "kernel7.img",
    }
}

/// The prefix of all paths, which counts only if kernel and device tree are found with it.
fn prefix(
    settings: &Settings,
    machine: &Machine,
    kernel: &str,
    exists: &dyn Fn(&str) -> bool,
) -> String {
    let asked = settings.get("os_prefix").map(str::to_owned).or_else(|| {
        settings
            .is_on("upstream_kernel")
            .then(|| "upstream/".to_owned())
    });
    asked
        .filter(|prefix| {
            let trees = device_trees(settings, machine, prefix, exists);
            exists(&format!("{prefix}{kernel}"))
                && (trees.is_empty() || trees.iter().any(|tree| exists(tree)))
        })
        .unwrap_or_default()
}

fn device_trees(
    settings: &Settings,
    machine: &Machine,
    prefix: &str,
    exists: &dyn Fn(&str) -> bool,
) -> Vec<String> {
    let place = |name: &str| format!("{prefix}{name}");
    match (settings.get("device_tree"), machine.model) {
        (Some(""), _) | (None, None) => Vec::new(),
        (Some(name), _) => vec![place(name)],
        (None, Some(model)) => {
            let upstream: Vec<String> = model.device_trees.iter().map(|name| place(name)).collect();
            let own = place(model.own_device_tree);
            let prefers_upstream = settings.is_on("upstream_kernel");
            if !prefers_upstream && exists(&own) {
                vec![own]
            } else if upstream.iter().any(|path| exists(path)) || prefers_upstream {
                upstream
            } else {
                vec![own]
            }
        }
    }
}

fn initramfs(settings: &Settings, kernel: &str) -> Vec<String> {
    if let Some(names) = settings.get("initramfs").or(settings.get("ramfsfile")) {
        let names = names.split_whitespace().next().unwrap_or_default();
        return names
            .split(',')
            .filter(|name| !name.is_empty())
            .map(str::to_owned)
            .collect();
    }
    match kernel
        .strip_prefix("kernel")
        .and_then(|rest| rest.strip_suffix(".img"))
    {
        Some(variant) if settings.is_on("auto_initramfs") => vec![format!("initramfs{variant}")],
        _ => Vec::new(),
    }
}

fn firmware(settings: &Settings, machine: &Machine) -> (Option<String>, Option<String>) {
    let number = match machine.model.map(|model| model.loader) {
        None | Some(Loader::Chip) => return (None, None),
        Some(Loader::Card) => "",
        Some(Loader::ChipAndCard) => "4",
    };
    // Who leaves the graphics processor no memory gets the firmware without graphics.
    let little = settings.get("gpu_mem").and_then(|value| value.parse().ok()) == Some(16);
    let variant = match (
        settings.is_on("start_x"),
        settings.is_on("start_debug"),
        little,
        number,
    ) {
        (_, _, true, _) => "cd",
        (true, _, _, _) => "x",
        (_, true, _, _) => "db",
        _ => "",
    };
    // Before the 4 the variants have an underscore before their letters.
    let variant = match (number, variant) {
        ("", variant) if !variant.is_empty() => format!("_{variant}"),
        (_, variant) => variant.to_owned(),
    };
    let or = |key: &str, default: String| settings.get(key).map_or(default, str::to_owned);
    (
        Some(or("start_file", format!("start{number}{variant}.elf"))),
        Some(or("fixup_file", format!("fixup{number}{variant}.dat"))),
    )
}

/// The lines that hold.
struct Settings(BTreeMap<String, String>);

impl Settings {
    fn read(text: &str, machine: &Machine, read: &dyn Fn(&str) -> Option<String>) -> Self {
        let mut settings = Self(BTreeMap::new());
        let mut filters = Filters::default();
        settings.take(text, machine, read, &mut filters, INCLUDES_MAX);
        settings
    }

    fn take(
        &mut self,
        text: &str,
        machine: &Machine,
        read: &dyn Fn(&str) -> Option<String>,
        filters: &mut Filters,
        includes: usize,
    ) {
        for line in text
            .lines()
            .map(|line| line.split('#').next().unwrap_or_default().trim())
        {
            let filter = line
                .strip_prefix('[')
                .and_then(|rest| rest.strip_suffix(']'));
            if let Some(filter) = filter {
                filters.apply(filter, machine);
            } else if !filters.hold() {
            } else if let Some(rest) = line.strip_prefix("initramfs ") {
                self.0
                    .insert("initramfs".to_owned(), rest.trim().to_owned());
            } else if let Some(name) = line.strip_prefix("include ") {
                let included = read(name.trim()).filter(|_| includes > 0);
                if let Some(included) = included {
                    self.take(&included, machine, read, filters, includes - 1);
                }
            } else if let Some((key, value)) = line.split_once('=') {
                self.0
                    .insert(key.trim().to_owned(), value.trim().to_owned());
            }
        }
    }

    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    fn is_on(&self, key: &str) -> bool {
        self.get(key) == Some("1")
    }
}

/// The filters in force, by kind: whether the last one of each kind holds.
#[derive(Default)]
struct Filters(BTreeMap<Kind, bool>);

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Model,
    BoardType,
    Serial,
    Tryboot,
    Partition,
    Monitor,
    Pin,
    Unknown,
}

impl Filters {
    fn hold(&self) -> bool {
        self.0.values().all(|holds| *holds)
    }

    fn apply(&mut self, filter: &str, machine: &Machine) {
        if filter.eq_ignore_ascii_case("all") {
            self.0.clear();
            return;
        }
        let (kind, holds) = judge(filter, machine);
        self.0.insert(kind, holds);
    }
}

fn judge(filter: &str, machine: &Machine) -> (Kind, bool) {
    let filter = filter.to_ascii_lowercase();
    let filters = machine.model.map_or(&[][..], |model| model.filters);
    let is_model = ["pi", "cm"].iter().any(|start| filter.starts_with(start));
    if let Some((key, value)) = filter.split_once('=') {
        return match key {
            "board-type" => {
                let wanted = number(value);
                let actual = machine.model.map(|model| model.board_type);
                (Kind::BoardType, wanted.is_some() && wanted == actual)
            }
            "partition" => (Kind::Partition, number(value) == Some(machine.partition)),
            "edid" => (Kind::Monitor, false),
            pin if pin.starts_with("gpio") => (Kind::Pin, false),
            _ => (Kind::Unknown, false),
        };
    }
    match filter.as_str() {
        "none" => (Kind::Model, false),
        "tryboot" => (Kind::Tryboot, machine.tryboot),
        "hdmi:0" | "hdmi:1" => (Kind::Monitor, true),
        serial if serial.starts_with("0x") => {
            (Kind::Serial, number(serial) == Some(machine.serial))
        }
        name if is_model => (Kind::Model, filters.contains(&name)),
        _ => (Kind::Unknown, false),
    }
}

fn number(text: &str) -> Option<u32> {
    match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inspect::model::{MODELS, model_named};

    /// A card on which there is nothing but `config.txt` and files of these names.
    fn choose(model: &str, config: &str, files: &[(&str, &str)]) -> BootChoice {
        let machine = Machine::of(model_named(model));
        choose_on(&machine, config, files)
    }

    fn choose_on(machine: &Machine, config: &str, files: &[(&str, &str)]) -> BootChoice {
        let read = |path: &str| {
            files
                .iter()
                .copied()
                .chain([("config.txt", config)])
                .find(|(name, _)| *name == path)
                .map(|(_, text)| text.to_owned())
        };
        choose_boot(&read, machine)
    }

    #[test]
    fn kernels() {
        for (model, config, expected) in [
            ("Zero W", "", "kernel.img"),
            ("Zero W", "arm_64bit=1", "kernel.img"),
            ("2 Model B", "", "kernel7.img"),
            ("3 Model B", "", "kernel7.img"),
            ("3 Model B", "arm_64bit=1", "kernel8.img"),
            ("4 Model B", "", "kernel8.img"),
            ("4 Model B", "arm_64bit=0", "kernel7l.img"),
            ("5", "arm_64bit=0", "kernel8.img"),
            ("3 Model B", "kernel=a # why\r\n[pi4]\nkernel=b\n[all]", "a"),
            ("3 Model B", "kernel=a\n[pi3]\nkernel=b", "b"),
            ("3 Model B", "[pi4]\nkernel=a\n[pi3]\nkernel=b", "b"),
            ("3 Model B", "[pi4]\n[0x0]\nkernel=a", "kernel7.img"),
            ("3 Model B", "[0x1]\nkernel=a", "kernel7.img"),
            ("3 Model B", "[0x0]\nkernel=a", "a"),
            ("3 Model B", "[board-type=0x8]\nkernel=a", "a"),
            (
                "3 Model B",
                "[pi4]\n[board-type=0x8]\nkernel=a",
                "kernel7.img",
            ),
            (
                "3 Model B",
                "[none]\nkernel=a\n[all]\ninclude more",
                "kernel7.img",
            ),
            ("3 Model B", "[EDID=ABC]\nkernel=a", "kernel7.img"),
            ("3 Model B", "[gpio4=1]\nkernel=a", "kernel7.img"),
            ("3 Model B", "[tryboot]\nkernel=a", "kernel7.img"),
            ("3 Model B", "[something]\nkernel=a", "kernel7.img"),
            ("3 Model B", "[partition=1]\nkernel=a", "a"),
            ("3 Model B+", "[pi3+]\nkernel=a", "a"),
            ("3 Model B", "[pi3+]\nkernel=a", "kernel7.img"),
            ("Zero 2 W", "[pi0]\nkernel=a", "a"),
            ("Compute Module 4", "[cm4]\nkernel=a", "a"),
            ("no Raspberry Pi", "", "kernel8.img"),
        ] {
            assert_eq!(
                choose(model, config, &[]).kernel,
                expected,
                "{model}: {config:?}"
            );
        }
    }

    #[test]
    fn includes() {
        let files = [("a", "include b\n[pi4]"), ("b", "kernel=b\ninclude a")];
        let choice = choose("3 Model B", "include a\nkernel=later", &files);
        assert_eq!(choice.kernel, "b");
    }

    #[test]
    fn prefixes_count_where_the_kernel_is() {
        let config = "os_prefix=v2/\nkernel=k\ninitramfs i followkernel\nupstream_kernel=1";
        let there = [("v2/k", ""), ("v2/bcm2837-rpi-3-b.dtb", "")];
        for (files, kernel, initramfs, cmdline) in [
            (&there[..], "v2/k", "v2/i", "v2/cmdline.txt"),
            (&there[..1], "k", "i", "cmdline.txt"),
            (&[], "k", "i", "cmdline.txt"),
        ] {
            let choice = choose("3 Model B", config, files);
            assert_eq!(
                (
                    choice.kernel.as_str(),
                    choice.initramfs,
                    choice.cmdline.as_str()
                ),
                (kernel, vec![initramfs.to_owned()], cmdline)
            );
        }
    }

    #[test]
    fn device_trees_by_their_source() {
        let (own, upstream) = ("bcm2710-rpi-3-b.dtb", "bcm2837-rpi-3-b.dtb");
        let both = [(own, ""), (upstream, "")];
        for (config, files, expected) in [
            ("", &both[..], vec![own]),
            ("upstream_kernel=1", &both, vec![upstream]),
            ("", &both[1..], vec![upstream]),
            ("", &[], vec![own]),
            ("device_tree=mine.dtb", &both, vec!["mine.dtb"]),
            ("device_tree=", &both, vec![]),
        ] {
            assert_eq!(
                choose("3 Model B", config, files).device_trees,
                expected,
                "{config}"
            );
        }
    }

    #[test]
    fn initramfs_archives() {
        for (config, expected) in [
            ("", vec![]),
            ("initramfs i.zst followkernel", vec!["i.zst"]),
            ("initramfs a,b 0x00800000", vec!["a", "b"]),
            ("ramfsfile=a,b", vec!["a", "b"]),
            ("auto_initramfs=1\narm_64bit=1", vec!["initramfs8"]),
            ("auto_initramfs=1\nkernel=mine", vec![]),
        ] {
            assert_eq!(
                choose("3 Model B", config, &[]).initramfs,
                expected,
                "{config}"
            );
        }
    }

    #[test]
    fn firmware_by_model_and_settings() {
        for (model, config, start, fixup) in [
            ("3 Model B", "", "start.elf", "fixup.dat"),
            ("3 Model B", "start_x=1", "start_x.elf", "fixup_x.dat"),
            ("3 Model B", "gpu_mem=16", "start_cd.elf", "fixup_cd.dat"),
            ("4 Model B", "", "start4.elf", "fixup4.dat"),
            ("4 Model B", "start_debug=1", "start4db.elf", "fixup4db.dat"),
            ("4 Model B", "start_file=s\nfixup_file=f", "s", "f"),
        ] {
            let choice = choose(model, config, &[]);
            let expected = (Some(start.to_owned()), Some(fixup.to_owned()));
            assert_eq!((choice.start, choice.fixup), expected, "{model}: {config}");
        }
        assert_eq!(choose("5", "", &[]).start, None);
    }

    #[test]
    fn slots_and_trials() {
        let trial = |model| Machine {
            tryboot: true,
            ..Machine::of(model_named(model))
        };
        let usual = Machine::of(model_named("4 Model B"));
        let autoboot = "[all]\ntryboot_a_b=1\nboot_partition=2\n[tryboot]\nboot_partition=3\n";
        assert_eq!(choose_partition(autoboot, &usual), 2);
        assert_eq!(choose_partition(autoboot, &trial("4 Model B")), 3);
        assert_eq!(choose_partition("", &usual), 1);
        let files = [("tryboot.txt", "kernel=new")];
        assert_eq!(
            choose_on(&trial("4 Model B"), "kernel=old", &files).kernel,
            "new"
        );
        let files = [("tryboot.txt", "kernel=new"), ("autoboot.txt", autoboot)];
        assert_eq!(
            choose_on(&trial("4 Model B"), "kernel=old", &files).kernel,
            "old"
        );
    }

    #[test]
    fn board_types_tell_models_apart() {
        for model in MODELS {
            let config = format!("[board-type={:#x}]\nkernel=mine", model.board_type);
            let takers: Vec<&str> = MODELS
                .iter()
                .filter(|other| choose(other.name, &config, &[]).kernel == "mine")
                .map(|other| other.name)
                .collect();
            assert_eq!(takers, [model.name]);
        }
    }
}
