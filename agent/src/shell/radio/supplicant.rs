//! The control socket of wpa_supplicant(8): what it has to say of the network, and the request to associate again.
//!
//! Both ends are datagram sockets with a path. Ours is connected, so that the kernel lets nobody but the supplicant write to it;
//! still, what arrives is text with other people's network names in it, and only fixed words at fixed places are believed.
//! Events begin with a level in angle brackets, replies do not.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use socket2::SockRef;
use tokio::net::UnixDatagram;
use tracing::{debug, trace};

use crate::engine::SupplicantEvent;

/// Where a supplicant keeps its sockets, one for each interface.
pub(super) const DIRECTORY: &str = "/run/wpa_supplicant";
/// The longest message of a supplicant (its own limit is 4096).
const MESSAGE_LIMIT: usize = 4096;

/// A supplicant that tells us its events.
#[derive(Debug)]
pub(super) struct Supplicant {
    socket: UnixDatagram,
    own_path: PathBuf,
}

/// What was received.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// Something of interest.
    Event(SupplicantEvent),
    /// The supplicant is ending.
    Ending,
    /// Anything else.
    Other,
    /// Nothing is waiting.
    Nothing,
}

impl Supplicant {
    /// Connects to a supplicant and asks for its events. `own_path` is where it sends them.
    pub(super) fn attach(path: &Path, own_path: &Path) -> io::Result<Supplicant> {
        // What a killed agent left is in the way.
        match fs::remove_file(own_path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let supplicant = Supplicant {
            socket: UnixDatagram::bind(own_path)?,
            own_path: own_path.to_owned(),
        };
        // It may be root without root's say over the files of others, and shares our group.
        fs::set_permissions(own_path, Permissions::from_mode(0o660))?;
        supplicant.socket.connect(path)?;
        supplicant.send("ATTACH")?;
        Ok(supplicant)
    }

    /// Asks for a new association; the reply is not waited for.
    pub(super) fn reassociate(&self) -> io::Result<()> {
        self.send("REASSOCIATE")
    }

    /// Asks for a sign of life. A supplicant that ended is an error.
    pub(super) fn ping(&self) -> io::Result<()> {
        self.send("PING")
    }

    /// Waits until there is something to receive.
    pub(super) async fn readable(&self) -> io::Result<()> {
        self.socket.readable().await
    }

    /// Receives without waiting.
    pub(super) fn receive(&self) -> io::Result<Heard> {
        let mut buffer = [0; MESSAGE_LIMIT];
        match self.socket.try_recv(&mut buffer) {
            Ok(length) => {
                let text = String::from_utf8_lossy(&buffer[..length]);
                // Quoted: there may be names of other people's networks in it.
                trace!(?text, "supplicant");
                Ok(parse(&text))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Heard::Nothing),
            Err(error) => Err(error),
        }
    }

    fn send(&self, request: &str) -> io::Result<()> {
        // The runtime would first want to hear from the kernel that there is room.
        let sent = SockRef::from(&self.socket).send(request.as_bytes())?;
        debug!(request, sent, "asked the supplicant");
        Ok(())
    }
}

impl Drop for Supplicant {
    fn drop(&mut self) {
        // The supplicant notices by itself that nobody receives. A path left over is replaced by the next start.
        let _ = fs::remove_file(&self.own_path);
    }
}

/// Parses a message: `<LEVEL>CTRL-EVENT-NAME words`. Names of networks stand in quotes, with quotes in them escaped.
pub(super) fn parse(text: &str) -> Heard {
    let Some((_, event)) = text
        .strip_prefix('<')
        .and_then(|rest| rest.split_once('>'))
        .filter(|(level, _)| level.len() == 1)
    else {
        return Heard::Other;
    };
    let (name, words) = event.split_once(' ').unwrap_or((event, ""));
    // The words that count stand behind the name of the network, which may contain anything, such words too.
    let last = |key: &str| {
        let words = words.rsplit_once('"').map_or(words, |(_, rest)| rest);
        let value = |word: &str| word.strip_prefix(key).map(str::to_owned);
        words.split_ascii_whitespace().find_map(value)
    };
    match name.trim_end() {
        "CTRL-EVENT-CONNECTED" => Heard::Event(SupplicantEvent::Connected),
        "CTRL-EVENT-SSID-TEMP-DISABLED" if last("reason=").as_deref() == Some("WRONG_KEY") => {
            Heard::Event(SupplicantEvent::WrongKey)
        }
        "CTRL-EVENT-EAP-FAILURE" => Heard::Event(SupplicantEvent::Refused),
        "CTRL-EVENT-EAP-TLS-CERT-ERROR" => Heard::Event(SupplicantEvent::WrongServer),
        "CTRL-EVENT-NETWORK-NOT-FOUND" => Heard::Event(SupplicantEvent::NetworkNotFound),
        "CTRL-EVENT-TERMINATING" => Heard::Ending,
        _ => Heard::Other,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram as StdDatagram;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn words_of_a_supplicant() {
        let wrong_key = Heard::Event(SupplicantEvent::WrongKey);
        let cases = [
            (
                "<3>CTRL-EVENT-CONNECTED - Connection to 02:00:00:00:00:01 completed [id=0 id_str=]",
                Heard::Event(SupplicantEvent::Connected),
            ),
            (
                "<3>CTRL-EVENT-SSID-TEMP-DISABLED id=0 ssid=\"Caf\\xc3\\xa9\" auth_failures=1 duration=10 reason=WRONG_KEY",
                wrong_key,
            ),
            (
                "<3>CTRL-EVENT-SSID-TEMP-DISABLED id=0 ssid=\"reason=WRONG_KEY \" auth_failures=1 duration=10 reason=CONN_FAILED",
                Heard::Other,
            ),
            (
                "<3>CTRL-EVENT-SSID-TEMP-DISABLED id=0 ssid=\"x\\\" reason=WRONG_KEY",
                Heard::Event(SupplicantEvent::WrongKey),
            ),
            (
                "<3>CTRL-EVENT-EAP-FAILURE EAP authentication failed",
                Heard::Event(SupplicantEvent::Refused),
            ),
            (
                "<3>CTRL-EVENT-EAP-TLS-CERT-ERROR reason=1 depth=1 subject='/CN=x' err='self-signed certificate'",
                Heard::Event(SupplicantEvent::WrongServer),
            ),
            (
                "<3>CTRL-EVENT-NETWORK-NOT-FOUND ",
                Heard::Event(SupplicantEvent::NetworkNotFound),
            ),
            ("<3>CTRL-EVENT-TERMINATING ", Heard::Ending),
            ("<3>CTRL-EVENT-BSS-ADDED 0 02:00:00:00:00:01", Heard::Other),
            ("CTRL-EVENT-CONNECTED", Heard::Other),
            ("<33>CTRL-EVENT-CONNECTED", Heard::Other),
            ("<3>", Heard::Other),
            ("OK\n", Heard::Other),
            ("", Heard::Other),
        ];
        for (text, expected) in cases {
            assert_eq!(parse(text), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn anything_may_be_said(text in "(<3>)?(CTRL-EVENT-SSID-TEMP-DISABLED)?\\PC{0,60}") {
            parse(&text);
        }
    }

    struct Rig {
        directory: tempfile::TempDir,
        server: StdDatagram,
    }

    impl Rig {
        fn new() -> Rig {
            let directory = tempfile::tempdir().unwrap();
            let server = StdDatagram::bind(directory.path().join("wlan0")).unwrap();
            Rig { directory, server }
        }

        fn attach(&self) -> io::Result<Supplicant> {
            let path = self.directory.path();
            Supplicant::attach(&path.join("wlan0"), &path.join("ours"))
        }

        fn request(&self) -> String {
            let mut buffer = [0; 64];
            let length = self.server.recv(&mut buffer).unwrap();
            String::from_utf8_lossy(&buffer[..length]).into_owned()
        }

        fn say(&self, message: &[u8]) {
            let ours = self.directory.path().join("ours");
            self.server.send_to(message, ours).unwrap();
        }
    }

    async fn hear(supplicant: &Supplicant) -> Heard {
        loop {
            supplicant.readable().await.unwrap();
            match supplicant.receive().unwrap() {
                Heard::Nothing => {}
                heard => return heard,
            }
        }
    }

    #[tokio::test]
    async fn a_supplicant_is_heard_and_asked() {
        let rig = Rig::new();
        let supplicant = rig.attach().unwrap();
        assert_eq!(rig.request(), "ATTACH");
        let ours = fs::metadata(rig.directory.path().join("ours")).unwrap();
        assert_eq!(ours.permissions().mode() & 0o777, 0o660);
        rig.say(b"OK\n");
        assert_eq!(hear(&supplicant).await, Heard::Other);
        rig.say(&[b"<3>".as_slice(), &[0xff; 8000]].concat());
        assert_eq!(hear(&supplicant).await, Heard::Other);
        rig.say(b"<3>CTRL-EVENT-NETWORK-NOT-FOUND ");
        assert_eq!(
            hear(&supplicant).await,
            Heard::Event(SupplicantEvent::NetworkNotFound)
        );
        supplicant.reassociate().unwrap();
        assert_eq!(rig.request(), "REASSOCIATE");
        drop(supplicant);
        assert!(!rig.directory.path().join("ours").exists());
    }

    #[tokio::test]
    async fn nobody_but_the_supplicant_is_heard() {
        let rig = Rig::new();
        let supplicant = rig.attach().unwrap();
        let stranger = StdDatagram::unbound().unwrap();
        let ours = rig.directory.path().join("ours");
        let refused = stranger.send_to(b"<3>CTRL-EVENT-TERMINATING ", ours);
        assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        assert_eq!(supplicant.receive().unwrap(), Heard::Nothing);
    }

    #[tokio::test]
    async fn a_supplicant_that_is_gone_is_noticed() {
        let Rig { directory, server } = Rig::new();
        let path = directory.path();
        // A path that a killed agent left is no hindrance.
        drop(StdDatagram::bind(path.join("ours")).unwrap());
        let supplicant = Supplicant::attach(&path.join("wlan0"), &path.join("ours")).unwrap();
        supplicant.ping().unwrap();
        drop(server);
        assert!(supplicant.ping().is_err());
        drop(supplicant);
        assert!(Supplicant::attach(&path.join("wlan0"), &path.join("ours")).is_err());
        assert!(!path.join("ours").exists());
    }
}
