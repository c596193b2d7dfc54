//! The models of Raspberry Pi as their boot loaders see them: which filters of `config.txt` hold, which files are looked for.
//!
//! Source: Raspberry Pi documentation, "config.txt", tables of model filters and of board types; names of device trees from the
//! firmware's own and from Linux's source.

/// One model.
#[derive(Debug, PartialEq, Eq)]
pub struct Model {
    /// Its name, as boards list it.
    pub name: &'static str,
    /// What starts it.
    pub loader: Loader,
    /// The filters by model that hold on it.
    pub filters: &'static [&'static str],
    /// Its number in `[board-type=...]`.
    pub board_type: u32,
    /// Its device trees in Linux's source; one for each revision that needs its own.
    pub device_trees: &'static [&'static str],
    /// Its device tree in Raspberry Pi's own source.
    pub own_device_tree: &'static str,
    /// How Linux's device trees name it.
    pub compatible: &'static [&'static str],
    /// The widest kernel its processor runs.
    pub processor: Processor,
}

/// Where the boot loader is, and which firmware it loads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loader {
    /// `bootcode.bin` and `start.elf` from the card.
    Card,
    /// A memory chip of the board's, and `start4.elf` from the card.
    ChipAndCard,
    /// A memory chip of the board's alone.
    Chip,
}

/// A processor, by what it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Processor {
    /// 32 bits.
    Armv6,
    /// 32 bits.
    Armv7,
    /// 64 bits, and 32 if asked to.
    Armv8,
    /// 64 bits only.
    Armv8Only,
}

/// Every model that a board is for.
pub const MODELS: &[Model] = &[
    model(
        "1 Model A+",
        Loader::Card,
        &["pi1"],
        0x02,
        &["bcm2835-rpi-a-plus.dtb"],
        "bcm2708-rpi-b-plus.dtb",
        &["raspberrypi,model-a-plus"],
        Processor::Armv6,
    ),
    model(
        "1 Model B",
        Loader::Card,
        &["pi1"],
        0x01,
        &["bcm2835-rpi-b.dtb", "bcm2835-rpi-b-rev2.dtb"],
        "bcm2708-rpi-b.dtb",
        &["raspberrypi,model-b", "raspberrypi,model-b-rev2"],
        Processor::Armv6,
    ),
    model(
        "1 Model B+",
        Loader::Card,
        &["pi1"],
        0x03,
        &["bcm2835-rpi-b-plus.dtb"],
        "bcm2708-rpi-b-plus.dtb",
        &["raspberrypi,model-b-plus"],
        Processor::Armv6,
    ),
    model(
        "Compute Module 1",
        Loader::Card,
        &["pi1", "cm1"],
        0x06,
        &["bcm2835-rpi-cm1-io1.dtb"],
        "bcm2708-rpi-cm.dtb",
        &["raspberrypi,compute-module"],
        Processor::Armv6,
    ),
    model(
        "Zero",
        Loader::Card,
        &["pi0"],
        0x09,
        &["bcm2835-rpi-zero.dtb"],
        "bcm2708-rpi-zero.dtb",
        &["raspberrypi,model-zero"],
        Processor::Armv6,
    ),
    model(
        "Zero W",
        Loader::Card,
        &["pi0", "pi0w"],
        0x0c,
        &["bcm2835-rpi-zero-w.dtb"],
        "bcm2708-rpi-zero-w.dtb",
        &["raspberrypi,model-zero-w"],
        Processor::Armv6,
    ),
    model(
        "2 Model B",
        Loader::Card,
        &["pi2"],
        0x04,
        &["bcm2836-rpi-2-b.dtb"],
        "bcm2709-rpi-2-b.dtb",
        &["raspberrypi,2-model-b"],
        Processor::Armv7,
    ),
    model(
        "3 Model B",
        Loader::Card,
        &["pi3"],
        0x08,
        &["bcm2837-rpi-3-b.dtb"],
        "bcm2710-rpi-3-b.dtb",
        &["raspberrypi,3-model-b"],
        Processor::Armv8,
    ),
    model(
        "3 Model B+",
        Loader::Card,
        &["pi3", "pi3+"],
        0x0d,
        &["bcm2837-rpi-3-b-plus.dtb"],
        "bcm2710-rpi-3-b-plus.dtb",
        &["raspberrypi,3-model-b-plus"],
        Processor::Armv8,
    ),
    model(
        "3 Model A+",
        Loader::Card,
        &["pi3", "pi3+"],
        0x0e,
        &["bcm2837-rpi-3-a-plus.dtb"],
        "bcm2710-rpi-3-b-plus.dtb",
        &["raspberrypi,3-model-a-plus"],
        Processor::Armv8,
    ),
    model(
        "Compute Module 3",
        Loader::Card,
        &["pi3", "cm3"],
        0x0a,
        &["bcm2837-rpi-cm3-io3.dtb"],
        "bcm2710-rpi-cm3.dtb",
        &["raspberrypi,3-compute-module"],
        Processor::Armv8,
    ),
    model(
        "Zero 2 W",
        Loader::Card,
        &["pi0", "pi0w", "pi02"],
        0x12,
        &["bcm2837-rpi-zero-2-w.dtb"],
        "bcm2710-rpi-zero-2-w.dtb",
        &["raspberrypi,model-zero-2-w"],
        Processor::Armv8,
    ),
    model(
        "4 Model B",
        Loader::ChipAndCard,
        &["pi4"],
        0x11,
        &["bcm2711-rpi-4-b.dtb"],
        "bcm2711-rpi-4-b.dtb",
        &["raspberrypi,4-model-b"],
        Processor::Armv8,
    ),
    model(
        "400",
        Loader::ChipAndCard,
        &["pi4", "pi400"],
        0x13,
        &["bcm2711-rpi-400.dtb"],
        "bcm2711-rpi-400.dtb",
        &["raspberrypi,400"],
        Processor::Armv8,
    ),
    model(
        "Compute Module 4",
        Loader::ChipAndCard,
        &["pi4", "cm4"],
        0x14,
        &["bcm2711-rpi-cm4-io.dtb"],
        "bcm2711-rpi-cm4.dtb",
        &["raspberrypi,4-compute-module"],
        Processor::Armv8,
    ),
    model(
        "5",
        Loader::Chip,
        &["pi5"],
        0x17,
        &["bcm2712-rpi-5-b.dtb", "bcm2712-d-rpi-5-b.dtb"],
        "bcm2712-rpi-5-b.dtb",
        &["raspberrypi,5-model-b"],
        Processor::Armv8Only,
    ),
    // Debian's kernel has no device trees of these two; their boot loader then takes the 5's.
    model(
        "500",
        Loader::Chip,
        &["pi5", "pi500"],
        0x19,
        &["bcm2712-d-rpi-5-b.dtb"],
        "bcm2712-rpi-500.dtb",
        &["raspberrypi,500", "raspberrypi,5-model-b"],
        Processor::Armv8Only,
    ),
    model(
        "Compute Module 5",
        Loader::Chip,
        &["pi5", "cm5"],
        0x18,
        &["bcm2712-d-rpi-5-b.dtb"],
        "bcm2712-rpi-cm5-cm5io.dtb",
        &["raspberrypi,5-compute-module", "raspberrypi,5-model-b"],
        Processor::Armv8Only,
    ),
];

/// Returns the model of a name that a board lists.
#[must_use]
pub fn model_named(name: &str) -> Option<&'static Model> {
    MODELS.iter().find(|model| model.name == name)
}

/// Returns the model that a device tree of Linux's is for.
#[must_use]
pub fn model_of_device_tree(name: &str) -> Option<&'static Model> {
    MODELS
        .iter()
        .find(|model| model.device_trees.contains(&name))
}

#[expect(
    clippy::too_many_arguments,
    reason = "a row of the table above, in the order of the fields"
)]
const fn model(
    name: &'static str,
    loader: Loader,
    filters: &'static [&'static str],
    board_type: u32,
    device_trees: &'static [&'static str],
    own_device_tree: &'static str,
    compatible: &'static [&'static str],
    processor: Processor,
) -> Model {
    Model {
        name,
        loader,
        filters,
        board_type,
        device_trees,
        own_device_tree,
        compatible,
        processor,
    }
}
