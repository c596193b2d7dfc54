//! Asks one device: connects, reads one small JSON document, and sends nothing.
//!
//! Anybody may be at the other end. Time and size are bounded, and what is read is shown without what commands terminals.

use std::io::{self, Read};
use std::net::{SocketAddrV4, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// The port at which devices answer.
pub const STATUS_PORT: u16 = 61067;

/// As much as a device may say, in bytes; it says a few hundred.
const DOCUMENT_MAX: u64 = 4096;

/// How long a device may take, from the connection to the end of what it says.
const PATIENCE: Duration = Duration::from_secs(3);

/// How long a device that turns its clients away is left alone.
const PAUSE: Duration = Duration::from_millis(400);

/// How often it is asked at most; who turns everybody away keeps others waiting.
const TRIES: u32 = 3;

/// Longest name and word that is shown, in characters.
const WORD_MAX: usize = 64;

/// What a device says, fit to be shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Answer {
    /// What it calls itself.
    pub name: String,
    /// The number of its processor.
    pub serial: Option<String>,
    /// Its image.
    pub image: Option<String>,
    /// The agent's version.
    pub version: String,
    /// What the bridge is doing.
    pub state: String,
    /// The interface in the network.
    pub uplink: String,
    /// The network's name.
    pub ssid: Option<String>,
    /// How strong the access point is received, in dBm.
    pub signal_dbm: Option<i16>,
    /// For how many seconds it has been on.
    pub uptime: Option<u64>,
    /// How many problems it has.
    pub problems: u64,
    /// Where it was asked.
    #[serde(rename = "address")]
    pub from: SocketAddrV4,
    /// The name that led there, where one did, without `.local`: its own, or another where somebody else has that.
    pub answers_as: Option<String>,
}

/// The document; fields of a newer agent are ignored.
#[derive(Debug, Deserialize)]
struct Document {
    name: String,
    serial: Option<String>,
    image: Option<String>,
    version: String,
    state: String,
    uplink: String,
    ssid: Option<String>,
    signal_dbm: Option<i16>,
    uptime: Option<u64>,
    problems: u64,
}

/// Asks a device until the deadline at most. An error says why it is no answer, without what the other end said.
pub fn ask(address: SocketAddrV4, deadline: Instant) -> Result<Answer, String> {
    let mut tries = 0..TRIES;
    loop {
        tries.next();
        let said = read(address, deadline).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => "it took too long".to_owned(),
            _ => error.to_string(),
        })?;
        if !said.is_empty() {
            return parse(&said, address);
        }
        // It serves a few clients at a time, and each not too often; it tells nobody when it has room.
        let is_over = deadline.saturating_duration_since(Instant::now()) < PAUSE;
        if is_over || tries.is_empty() {
            return Err("it turned us away; it may be busy".to_owned());
        }
        thread::sleep(PAUSE);
    }
}

fn read(address: SocketAddrV4, deadline: Instant) -> io::Result<Vec<u8>> {
    let end = deadline.min(Instant::now() + PATIENCE);
    let left = || {
        let left = end.saturating_duration_since(Instant::now());
        // The system takes no time at all for all the time in the world.
        (!left.is_zero())
            .then_some(left)
            .ok_or(io::ErrorKind::TimedOut)
    };
    let mut stream = TcpStream::connect_timeout(&address.into(), left()?)?;
    let mut said = Vec::new();
    let mut buffer = [0; 1024];
    while said.len() as u64 <= DOCUMENT_MAX {
        stream.set_read_timeout(Some(left()?))?;
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => said.extend(&buffer[..length]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // Turned away.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset && said.is_empty() => {
                break;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(said)
}

/// Parses what a device said. An error says why it is no answer.
pub fn parse(said: &[u8], from: SocketAddrV4) -> Result<Answer, String> {
    if said.len() as u64 > DOCUMENT_MAX {
        return Err("it says more than a device does".to_owned());
    }
    let document: Document = serde_json::from_slice(said)
        .map_err(|_| "it does not answer as a device does".to_owned())?;
    Ok(Answer {
        name: plain(&document.name),
        serial: document.serial.as_deref().map(plain),
        image: document.image.as_deref().map(plain),
        version: plain(&document.version),
        state: plain(&document.state),
        uplink: plain(&document.uplink),
        ssid: document.ssid.as_deref().map(plain),
        signal_dbm: document.signal_dbm,
        uptime: document.uptime,
        problems: document.problems,
        from,
        answers_as: None,
    })
}

/// Makes text what can be shown in a line: not too long, and without characters that command a terminal or rearrange what stands
/// around them.
pub fn plain(text: &str) -> String {
    let turns = |c: char| matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
    let shown = |c: char| {
        if c.is_control() || turns(c) {
            '\u{fffd}'
        } else {
            c
        }
    };
    text.chars().take(WORD_MAX).map(shown).collect()
}

#[cfg(test)]
pub mod tests {
    use std::io::Write;
    use std::net::{Ipv4Addr, TcpListener};

    use super::*;

    pub fn answer(name: &str, from: &str) -> Answer {
        Answer {
            name: name.to_owned(),
            serial: None,
            image: None,
            version: "0.1.0".to_owned(),
            state: "bridging".to_owned(),
            uplink: "wlan0".to_owned(),
            ssid: Some("Hall".to_owned()),
            signal_dbm: Some(-61),
            uptime: Some(3600),
            problems: 0,
            from: from.parse().unwrap(),
            answers_as: None,
        }
    }

    const DOCUMENT: &str = r#"{"name": "hall-1", "version": "9", "state": "bridging", "uplink": "wlan0", "problems": 2, "new": []}"#;

    /// Somebody who does this with each client.
    fn server(serve: impl Fn(TcpStream) + Send + 'static) -> SocketAddrV4 {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        thread::spawn(move || listener.incoming().flatten().for_each(serve));
        SocketAddrV4::new(Ipv4Addr::LOCALHOST, port)
    }

    fn says(text: impl Into<Vec<u8>>) -> SocketAddrV4 {
        let text = text.into();
        server(move |mut client| drop(client.write_all(&text)))
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_millis(500)
    }

    #[test]
    fn a_device_answers_in_json() {
        let found = ask(says(DOCUMENT), soon()).unwrap();
        assert_eq!((found.name.as_str(), found.problems), ("hall-1", 2));
        assert_eq!(
            (found.ssid, found.signal_dbm, found.uptime),
            (None, None, None)
        );
    }

    #[test]
    fn whoever_else_answers_is_told_apart_and_costs_little() {
        let huge = format!("{DOCUMENT}{}", " ".repeat(5000));
        for (text, why) in [
            (huge.as_bytes(), "it says more than a device does"),
            (
                b"SSH-2.0-dropbear\r\n",
                "it does not answer as a device does",
            ),
            (b"\xff\x00\x1b[2J", "it does not answer as a device does"),
            (b"{\"name\": 3}", "it does not answer as a device does"),
            (b"[[[[[[", "it does not answer as a device does"),
            (b"", "it turned us away; it may be busy"),
        ] {
            assert_eq!(ask(says(text), soon()), Err(why.to_owned()));
        }
        let endless = server(|mut client| while client.write_all(&[b' '; 4096]).is_ok() {});
        assert_eq!(
            ask(endless, soon()),
            Err("it says more than a device does".to_owned())
        );
        let silent = server(std::mem::forget);
        let begin = Instant::now();
        assert_eq!(ask(silent, soon()), Err("it took too long".to_owned()));
        assert!(begin.elapsed() < Duration::from_secs(5));
        let dripping = server(|mut client| {
            while client.write_all(b" ").is_ok() {
                // To be slow is what it is there for.
                thread::sleep(Duration::from_millis(20));
            }
        });
        assert_eq!(ask(dripping, soon()), Err("it took too long".to_owned()));
    }

    #[test]
    fn what_is_shown_commands_no_terminal() {
        let document = serde_json::json!({
            "name": "\u{1b}[31mhall\r\n\u{202e}1", "version": "x".repeat(1000), "state": "\u{9b}2J", "uplink": "\u{7}",
            "ssid": "\u{200b}", "image": "\u{feff}", "serial": "\0", "problems": 0,
        });
        let found = ask(says(document.to_string()), soon()).unwrap();
        assert_eq!(found.name, "\u{fffd}[31mhall\u{fffd}\u{fffd}\u{fffd}1");
        assert_eq!(found.version.len(), WORD_MAX);
        assert_eq!(found.state, "\u{fffd}2J");
        for word in [Some(found.uplink), found.ssid, found.image, found.serial] {
            assert_eq!(word.as_deref(), Some("\u{fffd}"));
        }
    }
}
