//! The mistakes that people make when they edit `site/` in a text editor, and where the card has to say that they are.

use anyhow::{Context, Result};
use imagegen::site::edit::SiteFiles;

/// What is typed in the place of a line.
struct Mistake {
    file: &'static str,
    /// How the line begins; it is the first one that does.
    line: &'static str,
    typed: &'static str,
    /// Which of the lines typed are wrong, counted from 0.
    wrong: &'static [usize],
    /// Whether the file is of no use without it, which is told as well.
    spoils: bool,
}

const MISTAKES: &[Mistake] = &[
    Mistake {
        file: "hostname",
        line: "",
        typed: "bar counter!",
        wrong: &[0],
        spoils: false,
    },
    // Two more networks below the one there is: a key that is too short, and a brace that is not there.
    Mistake {
        file: "wpa_supplicant.conf",
        line: "}",
        typed: "}\n\nnetwork={\n\tssid=\"Neighbours\"\n\tpsk=\"short\"\n}\n\nnetwork={\n\tssid=\"Neighbours upstairs\"\n\tpsk=\"long enough\"",
        wrong: &[4, 7],
        spoils: false,
    },
    Mistake {
        file: "uplink.network",
        line: "Address=",
        typed: "Address=192.168.77.555/24",
        wrong: &[0],
        spoils: true,
    },
    Mistake {
        file: "footbridge.toml",
        line: "uplink =",
        typed: "uplink = \"wlan0",
        wrong: &[0],
        spoils: false,
    },
];

/// Makes them all; returns how what the card says of each has to begin.
pub fn make_mistakes(site: &mut SiteFiles) -> Result<Vec<String>> {
    let mut faults = Vec::new();
    for mistake in MISTAKES {
        let file = mistake.file;
        let bytes = site
            .get_mut(file)
            .with_context(|| format!("the card has no site/{file}"))?;
        let text = str::from_utf8(bytes).with_context(|| format!("site/{file} is not text"))?;
        let mut lines: Vec<&str> = text.lines().collect();
        let at = lines
            .iter()
            .position(|line| line.starts_with(mistake.line))
            .with_context(|| format!("site/{file} has no line `{}`", mistake.line))?;
        lines[at] = mistake.typed;
        let text = lines.join("\n") + "\n";
        *bytes = text.into_bytes();
        let told = |wrong: &usize| format!("site/{file}, line {}: ", at + 1 + wrong);
        faults.extend(mistake.wrong.iter().map(told));
        faults.extend(mistake.spoils.then(|| format!("site/{file}: ")));
    }
    Ok(faults)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistakes_are_where_they_are_said_to_be() {
        let mut site: SiteFiles = [
            ("hostname", "counter\n"),
            (
                "wpa_supplicant.conf",
                "country=DE\nnetwork={\n\tssid=00\n}\n",
            ),
            ("uplink.network", "[Network]\nAddress=192.168.77.55/24\n"),
            (
                "footbridge.toml",
                "# Settings\nuplink = \"wlan0\"\ndownlink = \"eth0\"\n",
            ),
        ]
        .map(|(name, text)| (name.to_owned(), text.as_bytes().to_vec()))
        .into();
        let faults = make_mistakes(&mut site).unwrap();
        let lines: Vec<String> = faults
            .iter()
            .filter_map(|fault| fault.split_once(", line "))
            .map(|(file, line)| {
                let text = str::from_utf8(&site[file.trim_start_matches("site/")]).unwrap();
                let number: usize = line.trim_end_matches(": ").parse().unwrap();
                text.lines().nth(number - 1).unwrap().trim().to_owned()
            })
            .collect();
        assert_eq!(
            lines,
            [
                "bar counter!",
                "psk=\"short\"",
                "network={",
                "Address=192.168.77.555/24",
                "uplink = \"wlan0"
            ]
        );
        let whole: Vec<&String> = faults
            .iter()
            .filter(|fault| !fault.contains(", line "))
            .collect();
        assert_eq!(whole, ["site/uplink.network: "]);
        assert!(make_mistakes(&mut SiteFiles::new()).is_err());
    }
}
