//! What is kept of a card's wpa_supplicant.conf, read by wpa_supplicant itself: it takes all of it, and of a network whatever it would take.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::thread;

use footbridge_agent::site::{Rule, SiteFiles, check_site};

use crate::skip::{missing_tools, search_path, skip};

const RULE: &str = "wpa_supplicant.conf 0600 wpa_supplicant.conf\n";
const GOOD: &str =
    "ctrl_interface=/run/wpa_supplicant\nnetwork={\nssid=\"good\"\nkey_mgmt=NONE\n}\n";

/// Settings of a network, good ones and bad ones, as people write them and as nobody does.
const SETTINGS: &[&str] = &[
    "acs=1",
    "altsubject_match=\"DNS:a\"",
    "ampdu_factor=4",
    "auth_alg=",
    "auth_alg=OPEN SHARED",
    "auth_alg=open",
    "bgscan=\"simple:30:-45:300\"",
    "bgscan=simple",
    "bssid=",
    "bssid=\"\"",
    "bssid=any",
    "bssid=00:11:22:33:44:55",
    "bssid=00:11:22:33:44:55zz",
    "bssid=00-11-22-33-44-55",
    "bssid=0:1:2:3:4:5",
    "bssid_accept=",
    "bssid_accept=00:11:22:33:44:55/ff:ff:ff:00:00:00zz  00:11:22:33:44:66",
    "bssid_accept=00:11:22:33:44:55,00:11:22:33:44:66",
    "bssid_ignore=00:11:22:33:44:55\t00:11:22:33:44:66",
    "ca_cert=/etc/ca.pem",
    "ca_cert=\"/etc/ca.pem\"",
    "disable_ht40=-2",
    "disable_ht40=-1",
    "disabled=3",
    "disabled=-7",
    "eap=",
    "eap=AKA'",
    "eap=LEAP",
    "eap=PEAP  TLS",
    "eap=TEAP",
    "eap=peap",
    "eap=SIM PSK TNC",
    "edmg_channel=5",
    "edmg_channel=9",
    "freq_list=",
    "freq_list=x",
    "frequency=70201",
    "group=",
    "group=AES",
    "group=GTK_NOT_USED",
    "group=NONE",
    "group=WEP40",
    "group_mgmt=AES-128-CMAC BIP-GMAC-256",
    "group_mgmt=CCMP",
    "group_rekey=86400",
    "ht40=-2",
    "id_str=\"a\"b\"",
    "id_str=\"ab\" c",
    "id_str=NULL",
    "id_str=P\"\\x0\\\"\"",
    "id_str=P\"a",
    "id_str=abc",
    "id_str=abcd",
    "id_str=",
    "identity=me",
    "identity=NULL",
    "ieee80211w=0\nocv=1",
    "ocv=1\nieee80211w=0",
    "ocv=0x1\nieee80211w=0x0",
    "ieee80211w=3",
    "ieee80211w=4",
    "ieee80211w=-1",
    "key_mgmt=",
    "key_mgmt=WPA2-PSK",
    "key_mgmt=WPA-PSK\tSAE",
    "key_mgmt=WPA-PSK,SAE",
    "mac_addr=3",
    "macsec_port=65535",
    "mem_only_psk=yes",
    "mesh_basic_rates=x",
    "mixed_cell=2",
    "mka_cak=0011",
    "mka_cak=00112233445566778899aabbccddeeff",
    "mka_ckn=",
    "mka_ckn=00",
    "mka_ckn=0",
    "mode=0",
    "mode=5",
    "mode=0x5",
    "mode=6",
    "mode=5\nkey_mgmt=SAE",
    "mode=5\nkey_mgmt=SAE WPA-PSK",
    "openssl_ciphers=\"x\"",
    "p2p_client_list=00:11:22:33:44:55 x",
    "p2p_client_list=x",
    "pac_file=\"blob://x\"",
    "pairwise=AES",
    "pairwise=CCMP  TKIP",
    "pairwise=GCMP-256",
    "pairwise=NONE",
    "pairwise=WEP40",
    "pairwise=ccmp",
    "password=\"x\"",
    "password=ext:x",
    "password=hash:00",
    "password=hash:00112233445566778899aabbccddeeff",
    "password=hash:00112233445566778899aabbccddeefg",
    "password=secret",
    "peerkey=\"",
    "peerkey=x",
    "phase1=tls",
    "phase2=\"auth=MSCHAPV2\"",
    "phase2=auth=MSCHAPV2",
    "priority=",
    "priority= 7",
    "priority=-7",
    "priority=0x1g",
    "priority=08",
    "priority=1.5",
    "priority=4294967297",
    "priority=99999999999999999999",
    "proto=",
    "proto=RSN",
    "proto=WPA WPA2",
    "proto=WPA3",
    "psk=",
    "psk=\"1234567\"",
    "psk=\"12345678",
    "psk=\"12345678\" x",
    "psk=\"1234\t5678\"",
    "psk=\"1234\"678\"",
    "psk=P\"12345678\"",
    "psk=ext:x",
    "psk=00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff",
    "psk=00112233445566778899aabbccddeeff",
    "psk=00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff0",
    "psk_list=00:11:22:33:44:55-00",
    "psk_list=P2P-00:11:22:33:44:55-00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff",
    "roaming_consortium_selection=0011",
    "roaming_consortium_selection=00112233445566778899aabbccddeeff",
    "sae_password=x",
    "sae_password=\"x\"",
    "scan_freq=2412,2437",
    "scan_ssid=2",
    "scan_ssid=01",
    "scan_ssid=yes",
    "sim_num=x",
    "tx_stbc=-2",
    "wep_key0=\"12345678901234567\"",
    "wep_key0=\"x\"",
    "wep_key0=123",
    "wep_tx_keyidx=4",
    "wps_disabled=2",
    "ssid = \"x\"",
    "nonsense=1",
    "nonsense",
    "network={",
    "ssid=\"123456789012345678901234567890123\"",
    "ssid=zz",
    "psk=\u{201c}12345678\u{201d}",
];

/// Lines outside of networks, which may be left out though wpa_supplicant would take them.
const GLOBALS: &[&str] = &[
    "ap_isolate=2",
    "ap_scan=7",
    "ap_vendor_elements=dd0",
    "ap_vendor_elements=dd0411223301",
    "bgscan=\"x\"",
    "bgscan=x",
    "bss_max_count=x",
    "config_methods=label display",
    "country=D",
    "country=DE",
    "country=Germany",
    "ctrl_interface=",
    "ctrl_interface=DIR=/run/wpa_supplicant GROUP=wheel",
    "device_name=123456789012345678901234567890123",
    "device_type=1-0050F204-1",
    "device_type=x",
    "dpp_name=x",
    "dtim_period=",
    "eapol_version=3",
    "eapol_version=4",
    "ext_password_backend=x",
    "fast_reauth=yes",
    "filter_rssi=-101",
    "filter_rssi=1",
    "fst_group_id=",
    "fst_llt=0",
    "fst_priority=256",
    "gas_rand_mac_addr=3",
    "hessid=00:11:22:33:44:55",
    "hessid=00112233445",
    "ip_addr_go=192.168.42.1",
    "ip_addr_go=x",
    "load_dynamic_eap=x",
    "manufacturer=x",
    "max_peer_links=256",
    "mbo_cell_capa=0",
    "no_ctrl_interface=x",
    "non_pref_chan=x",
    "openssl_ciphers=x",
    "os_version=01020300",
    "os_version=x",
    "p2p_device_persistent_mac_addr=x",
    "p2p_go_intent=16",
    "p2p_no_go_freq=x",
    "p2p_passphrase_len=7",
    "p2p_pref_chan=81",
    "p2p_pref_chan=81:1,115:36",
    "sae_groups=x",
    "sae_pwe=4",
    "sec_device_type=x",
    "update_config=yes",
    "uuid=12345678-9abc-def0-1234-56789abcdef0",
    "uuid=x",
    "wmm_ac_bk_cwmin=4",
    "wps_cred_processing=3",
    "wps_nfc_dev_pw=0",
    "wps_nfc_dev_pw=",
    "wps_nfc_dev_pw_id=15",
    "wps_vendor_ext_m1=",
    "wps_vendor_ext_m1=000137100100020001",
    "x=1",
    "x",
    "}",
    "network = {\n}",
    "cred={\nrealm=\"x\"\neap=TTLS\nsp_priority=7\n}",
    "cred={\neap=x\n}",
    "cred={\nsp_priority=256\n}",
    "cred={\nroaming_consortium=NULL\n}",
    "cred={\nroaming_consortium=112233\n}",
    "cred={\nroaming_consortiums=\"112233,4455667788\"\n}",
    "cred={\nroaming_consortiums=\"1\"\n}",
    "cred={\nroaming_partner=\"a,1,2,*\"\n}",
    "cred={\nroaming_partner=\"a,1,2,abc\"\n}",
    "cred={\nusername=me\n}",
    "cred={\npassword=P\"a\\nb\"\n}",
    "cred={\npassword=ext:x\n}",
    "cred={\nx=\"x\"\n}",
    "blob-base64-x={\nAAAA\n}",
    "blob-base64-x={\nAAA\n}",
    "blob-base64-x={\nA\n}",
    "blob-base64-x={\n}",
    "blob-base64-x={\n!\n}",
    "blob-base64-x=\n",
];

/// Whether wpa_supplicant takes a file. It is given a driver that there is not, so that it ends behind the file in any case.
fn takes(folder: &Path, text: &[u8]) -> bool {
    let path = folder.join("wpa_supplicant.conf");
    fs::write(&path, text).unwrap();
    let output = Command::new("wpa_supplicant")
        .env("PATH", search_path())
        .args(["-i", "lo", "-D", "none-such", "-c"])
        .arg(&path)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let refused = said.contains("Failed to read or parse configuration");
    assert!(refused != said.contains("Unsupported driver"), "{said}");
    !refused
}

fn kept(text: &[u8]) -> Vec<u8> {
    let rules = Rule::parse_table(RULE).unwrap();
    let site = SiteFiles::from([("wpa_supplicant.conf".to_owned(), Ok(text.to_vec()))]);
    let mut checked = check_site(&rules, &site, false);
    // Nothing that is left out goes untold.
    if checked.faults.is_empty() {
        let empty = |bytes: &[u8]| {
            bytes
                .split(|byte| *byte == b'\n')
                .filter(|line| line.is_empty())
                .count()
        };
        assert!(
            empty(&checked.files[0].bytes) <= 1 + empty(text),
            "{}",
            text.escape_ascii()
        );
    }
    checked.files.remove(0).bytes
}

fn is_missing(test: &str) -> bool {
    let missing = !missing_tools(&["wpa_supplicant"]).is_empty();
    if missing {
        skip(test, "wpa_supplicant is not installed");
    }
    missing
}

/// Runs a check of each of many things, on as many processors as there are.
fn for_each<T: Sync>(all: &[T], check: impl Fn(&Path, &T) + Sync) {
    let workers = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for part in all.chunks(all.len().div_ceil(workers)) {
            let check = &check;
            scope.spawn(move || {
                let folder = tempfile::tempdir().unwrap();
                part.iter().for_each(|one| check(folder.path(), one));
            });
        }
    });
}

#[test]
fn of_networks_it_takes_what_is_kept_and_nothing_else() {
    if is_missing("supplicant::of_networks_it_takes_what_is_kept_and_nothing_else") {
        return;
    }
    let disagreed = Mutex::new(Vec::new());
    for_each(SETTINGS, |folder, setting| {
        let network = format!("network={{\nssid=\"x\"\npsk=\"a passphrase\"\n{setting}\n}}\n");
        let text = format!("{GOOD}{network}");
        let found = String::from_utf8(kept(text.as_bytes())).unwrap();
        let is_kept = found == text;
        assert!(
            is_kept || found.trim_end() == GOOD.trim_end(),
            "{setting}: {found}"
        );
        if takes(folder, text.as_bytes()) != is_kept {
            disagreed.lock().unwrap().push(*setting);
        }
    });
    assert_eq!(disagreed.into_inner().unwrap(), [""; 0]);
    assert_eq!(GOOD.as_bytes(), kept(GOOD.as_bytes()));
}

#[test]
fn outside_of_networks_it_takes_what_is_kept() {
    if is_missing("supplicant::outside_of_networks_it_takes_what_is_kept") {
        return;
    }
    for_each(GLOBALS, |folder, line| {
        let found = kept(format!("{line}\n{GOOD}").as_bytes());
        assert!(found.ends_with(GOOD.as_bytes()), "{line}");
        assert!(takes(folder, &found), "{line}");
    });
}

/// A file with some of its bytes replaced, taken out or doubled: by a generator that gives the same ones each time.
fn damaged(seed: u64, text: &[u8]) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below as u64) as usize
    };
    let mut bytes = text.to_vec();
    for _ in 0..1 + next(4) {
        const LIKELY: &[u8] = b"\"#={}\n \t0aP\\\r\xe9";
        let at = next(bytes.len());
        match next(4) {
            0 => bytes[at] = LIKELY[next(LIKELY.len())],
            1 => bytes.insert(at, LIKELY[next(LIKELY.len())]),
            2 => drop(bytes.remove(at)),
            _ => {
                let end = (at + next(40)).min(bytes.len());
                let part = bytes[at..end].to_vec();
                let to = next(bytes.len());
                bytes.splice(to..to, part);
            }
        }
    }
    bytes
}

#[test]
fn of_damaged_files_it_takes_what_is_kept() {
    if is_missing("supplicant::of_damaged_files_it_takes_what_is_kept") {
        return;
    }
    let text = concat!(
        "# home\nctrl_interface=/run/wpa_supplicant\nupdate_config=0\ncountry=DE\n\nnetwork={\n\tssid=\"a # b\" # mine\n\tscan_ssid=1\n",
        "\tkey_mgmt=WPA-PSK SAE\n\tpsk=\"a passphrase\"\n\tieee80211w=1\n\tpriority=3\n}\nnetwork={\n\tssid=686f6d65\n\tkey_mgmt=WPA-EAP\n",
        "\teap=PEAP\n\tidentity=\"me\"\n\tpassword=\"x\"\n\tphase2=\"auth=MSCHAPV2\"\n\tproto=RSN\n\tpairwise=CCMP\n\tgroup=CCMP TKIP\n",
        "\tbssid=00:11:22:33:44:55\n}\ncred={\n\trealm=\"x\"\n}\nblob-base64-x={\nAAAA\n}\n",
    );
    let seeds: Vec<u64> = (1..=400).collect();
    for_each(&seeds, |folder, seed| {
        let bytes = damaged(*seed, text.as_bytes());
        let found = kept(&bytes);
        assert!(takes(folder, &found), "{seed}: {}", found.escape_ascii());
    });
}
