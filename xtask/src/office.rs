//! The simulated network whose members a server admits each by themselves (IEEE 802.1X): certificates, members, and what hostapd, which has
//! that server in it, has to know of both.
//!
//! ```text
//! authority --vouches for--> server, member        stranger --vouches for--> impostor, which has the server's name
//! ```
//!
//! Certificates are made anew each time, by openssl(1), and hold for a month. Their keys stay in the folder that they are made in, and in the
//! guest that needs them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use imagegen::credentials::Ssid;
use imagegen::tree::{Node, Tree};

use crate::tools;
use crate::usage::Failure;

/// What the network is called, and what whoever poses as it says.
pub const SSID: &str = "Headquarters";
/// Whom its server's certificate names.
pub const SERVER_NAME: &str = "radius.example.org";
/// Who is admitted by password, what is said aloud before, and the password, with what configuration files stumble over.
pub const IDENTITY: &str = "clerk@example.org";
pub const ANONYMOUS_IDENTITY: &str = "somebody@example.org";
pub const PASSWORD: &str = "öpen \"sesame\" #1 $x \\";
/// Who is admitted by certificate, and what opens the certificate's key.
pub const MACHINE: &str = "host/clerk.example.org";
pub const KEY_PASSWORD: &str = "a \"key\" to a # key";

/// Files of the folder that a card is made with.
pub const AUTHORITY: &str = "authority.pem";
pub const MEMBER: &str = "member.pem";
pub const MEMBER_KEY: &str = "member.key";
pub const MEMBER_KEY_PASSWORD: &str = "member.password";

/// What openssl is told, in place of what this machine's own file of settings would tell it.
const SETTINGS: &str = "openssl.cnf";

/// A network with a server.
pub struct Office {
    folder: PathBuf,
}

/// A certificate that is to be made, `NAME.pem`, and its key, `NAME.key`.
struct Certificate {
    name: &'static str,
    /// Whom it names.
    subject: &'static str,
    /// Who vouches for it; without anybody it does so itself.
    by: Option<&'static str>,
    /// Which section of the settings says what it is for.
    purpose: &'static str,
    /// Which file has the password of the key, if it has one.
    key_password: Option<&'static str>,
}

const CERTIFICATES: &[Certificate] = &[
    Certificate {
        name: "authority",
        subject: "Headquarters' own authority",
        by: None,
        purpose: "authority",
        key_password: None,
    },
    Certificate {
        name: "server",
        subject: SERVER_NAME,
        by: Some("authority"),
        purpose: "server",
        key_password: None,
    },
    Certificate {
        name: "member",
        subject: "clerk.example.org",
        by: Some("authority"),
        purpose: "member",
        key_password: Some(MEMBER_KEY_PASSWORD),
    },
    Certificate {
        name: "stranger",
        subject: "Somebody else's authority",
        by: None,
        purpose: "authority",
        key_password: None,
    },
    Certificate {
        name: "impostor",
        subject: SERVER_NAME,
        by: Some("stranger"),
        purpose: "server",
        key_password: None,
    },
];

impl Office {
    /// Makes all certificates, in a folder that nobody else can look into.
    pub fn make(folder: &Path) -> Result<Self> {
        let office = Office {
            folder: folder.to_owned(),
        };
        office.put(
            SETTINGS,
            &format!(
                "[req]\ndistinguished_name = nobody\n[nobody]\n\
                 [authority]\nbasicConstraints = critical, CA:TRUE\nkeyUsage = critical, keyCertSign\n\
                 [server]\nbasicConstraints = critical, CA:FALSE\nextendedKeyUsage = serverAuth\nsubjectAltName = DNS:{SERVER_NAME}\n\
                 [member]\nbasicConstraints = critical, CA:FALSE\nextendedKeyUsage = clientAuth\n"
            ),
        )?;
        office.put(MEMBER_KEY_PASSWORD, &format!("{KEY_PASSWORD}\n"))?;
        for certificate in CERTIFICATES {
            office.certify(certificate)?;
        }
        Ok(office)
    }

    fn certify(&self, certificate: &Certificate) -> Result<()> {
        let openssl = tools::find("openssl").ok_or_else(|| {
            let hint = "on Debian: apt-get install openssl";
            Failure::new("openssl is not installed", hint)
        })?;
        let name = certificate.name;
        let [pem, key] = ["pem", "key"].map(|end| format!("{name}.{end}"));
        let mut command = Command::new(openssl);
        command
            .current_dir(&self.folder)
            .args(["req", "-x509", "-config", SETTINGS, "-days", "30"])
            .args(["-extensions", certificate.purpose])
            .args(["-subj", &format!("/CN={}", certificate.subject)])
            .args(["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"])
            .args(["-keyout", &key, "-out", &pem]);
        match certificate.key_password {
            Some(file) => command.args(["-passout", &format!("file:{file}")]),
            None => command.arg("-nodes"),
        };
        if let Some(by) = certificate.by {
            command.args(["-CA", &format!("{by}.pem")]);
            command.args(["-CAkey", &format!("{by}.key")]);
        }
        let outcome = command.output().context("while starting openssl")?;
        if !outcome.status.success() {
            let said = String::from_utf8_lossy(&outcome.stderr);
            bail!("openssl made no certificate for {name}:\n{said}");
        }
        Ok(())
    }

    /// Puts what the guest's scripts have to know into their tree: of the network, and of whoever poses as it.
    pub fn describe(&self, tree: &mut Tree) -> Result<()> {
        let ssid = Ssid::new(SSID)?.to_hex() + "\n";
        // Quotes in a password would end it.
        let password: String = PASSWORD.bytes().map(|byte| format!("{byte:02x}")).collect();
        let members = format!(
            "\"{ANONYMOUS_IDENTITY}\"\tPEAP\n\"{MACHINE}\"\tTLS\n\"{IDENTITY}\"\tMSCHAPV2\t{password}\t[2]\n"
        );
        for (network, server) in [("office", "server"), ("impostor", "impostor")] {
            let mut put = |file: &str, contents: Vec<u8>| {
                let path = format!("e2e/networks/{network}/{file}");
                tree.insert(path, Node::file(0o600, contents))
            };
            put("ssid", ssid.clone().into())?;
            put("members", members.clone().into())?;
            put("authority.pem", self.read(AUTHORITY)?)?;
            put("server.pem", self.read(&format!("{server}.pem"))?)?;
            put("server.key", self.read(&format!("{server}.key"))?)?;
        }
        Ok(())
    }

    fn put(&self, name: &str, text: &str) -> Result<()> {
        let path = self.folder.join(name);
        fs::write(&path, text).with_context(|| format!("while writing {}", path.display()))
    }

    fn read(&self, name: &str) -> Result<Vec<u8>> {
        let path = self.folder.join(name);
        fs::read(&path).with_context(|| format!("while reading {}", path.display()))
    }
}
