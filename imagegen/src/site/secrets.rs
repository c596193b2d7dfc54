//! What of a site's files nobody should see, and how the rest is shown.

use crate::credentials::decode_hex;

/// What stands where something is hidden.
const HIDDEN: &str = "<hidden>";

/// Parts of the names of settings that are secrets.
const SECRETS: [&str; 5] = ["psk", "passw", "passphrase", "secret", "wep_key"];

/// Beginnings of the names of others.
const SECRETS_BEGIN: [&str; 3] = ["pin", "mka_", "dpp_"];

/// Whether a file of a site may be a key as a whole, so that nothing in it is shown.
pub(crate) fn is_secret_file(name: &str) -> bool {
    name.to_ascii_lowercase().ends_with(".pem")
}

/// Returns a line of settings with a mark in place of the value of a secret, in a comment too; and a network's name in letters.
pub(crate) fn without_secret(line: &str) -> String {
    let Some((key, value)) = line.split_once('=') else {
        return line.to_owned();
    };
    let name = key.trim_matches(|c: char| c == '#' || c.is_whitespace());
    let name = name.to_ascii_lowercase();
    if SECRETS.iter().any(|secret| name.contains(secret))
        || SECRETS_BEGIN.iter().any(|begin| name.starts_with(begin))
    {
        return format!("{key}={HIDDEN}");
    }
    // A comment that tells how a secret is written may be one that was.
    match value.find("psk=").or_else(|| value.find("password=")) {
        Some(at) => format!("{key}={}{HIDDEN}", &value[..at]),
        None if name == "ssid" => format!("{line}{}", readable_name(value)),
        None => line.to_owned(),
    }
}

/// The name that hexadecimal digits stand for.
fn readable_name(value: &str) -> String {
    let Some(bytes) = decode_hex(value.trim()) else {
        return String::new();
    };
    match str::from_utf8(&bytes) {
        Ok("") => String::new(),
        Ok(name) if !name.contains(char::is_control) => format!("    ({name})"),
        _ => format!("    ({})", bytes.escape_ascii()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_hidden() {
        for (line, expected) in [
            ("\tpsk=0123", "\tpsk=<hidden>"),
            ("# psk=\"old = one\"", "# psk=<hidden>"),
            ("sae_password=\"x\"", "sae_password=<hidden>"),
            ("private_key_passwd=\"x\"", "private_key_passwd=<hidden>"),
            ("Passphrase = x", "Passphrase =<hidden>"),
            ("\tpin=\"1234\"", "\tpin=<hidden>"),
            ("#dpp_csign=30", "#dpp_csign=<hidden>"),
            ("# it was psk=old", "# it was psk=<hidden>"),
            ("# note = psk=old", "# note = <hidden>"),
            ("key_mgmt=WPA-PSK", "key_mgmt=WPA-PSK"),
            ("passive_scan=1", "passive_scan=1"),
            ("ssid=\"net\"", "ssid=\"net\""),
            ("ssid=6e6574", "ssid=6e6574    (net)"),
            ("ssid=", "ssid="),
            ("ssid=E697A5", "ssid=E697A5    (日)"),
            ("ssid=1b5b30", "ssid=1b5b30    (\\x1b[0)"),
            ("no setting", "no setting"),
        ] {
            assert_eq!(without_secret(line), expected);
        }
        for (name, expected) in [
            ("a.pem", true),
            ("A.PEM", true),
            ("wpa_supplicant.conf", false),
        ] {
            assert_eq!(is_secret_file(name), expected, "{name}");
        }
    }
}
