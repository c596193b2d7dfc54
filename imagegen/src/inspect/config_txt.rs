//! What the board's boot loader would load, by its `config.txt`: kernel, initramfs and the files' places.
//!
//! Source: Raspberry Pi documentation, "config.txt": a line is `key=value` (`initramfs` has its values after blanks), `#`
//! starts a comment, a filter such as `[pi3]` holds for the lines below it, filters of different kinds combine, `[all]` ends
//! them all. Only the filters by model are known here; lines under any other filter are passed over, as on a board that does
//! not match.

use std::collections::BTreeMap;

/// What the boot loader was told to load.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootChoice {
    /// Path of the kernel on the boot partition.
    pub kernel: String,
    /// Path of the initramfs, where one is named.
    pub initramfs: Option<String>,
    /// Path of the file with the kernel's command line.
    pub cmdline: String,
}

/// Reads `config.txt` as a board does for which the filters named in `models` hold (`pi3`, and so on).
pub fn parse_config_txt(text: &str, models: &[&str]) -> BootChoice {
    let mut matches = true;
    let mut values = BTreeMap::new();
    let mut initramfs = None;
    for line in text
        .lines()
        .map(|line| line.split('#').next().unwrap_or_default().trim())
    {
        if let Some(filter) = line
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
        {
            matches = filter == "all" || (matches && models.contains(&filter));
        } else if !matches {
        } else if let Some(rest) = line.strip_prefix("initramfs ") {
            initramfs = rest.split_whitespace().next().map(String::from);
        } else if let Some((key, value)) = line.split_once('=') {
            values.insert(key.trim(), value.trim());
        }
    }
    let prefix = values.get("os_prefix").copied().unwrap_or_default();
    let default_kernel = if values.get("arm_64bit") == Some(&"0") {
        "kernel7.img"
    } else {
        "kernel8.img"
    };
    let place = |name: &str| format!("{prefix}{name}");
    BootChoice {
        kernel: place(values.get("kernel").unwrap_or(&default_kernel)),
        initramfs: initramfs.as_deref().map(place),
        cmdline: place(values.get("cmdline").unwrap_or(&"cmdline.txt")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choice(kernel: &str, initramfs: Option<&str>, cmdline: &str) -> BootChoice {
        BootChoice {
            kernel: kernel.into(),
            initramfs: initramfs.map(String::from),
            cmdline: cmdline.into(),
        }
    }

    #[test]
    fn the_boot_loaders_choice() {
        for (text, expected) in [
            ("", choice("kernel8.img", None, "cmdline.txt")),
            ("arm_64bit=0", choice("kernel7.img", None, "cmdline.txt")),
            (
                "kernel=a\ninitramfs i.zst followkernel",
                choice("a", Some("i.zst"), "cmdline.txt"),
            ),
            (
                "kernel=a # why\r\n[pi4]\nkernel=b\n[all]\ncmdline=c",
                choice("a", None, "c"),
            ),
            (
                "kernel=a\n[pi3]\nkernel=b",
                choice("b", None, "cmdline.txt"),
            ),
            (
                "[pi3]\n[board-type=0x8]\nkernel=b\n[all]",
                choice("kernel8.img", None, "cmdline.txt"),
            ),
            (
                "os_prefix=v2/\nkernel=k\ninitramfs i followkernel",
                choice("v2/k", Some("v2/i"), "v2/cmdline.txt"),
            ),
        ] {
            assert_eq!(parse_config_txt(text, &["pi3"]), expected, "{text:?}");
        }
    }
}
