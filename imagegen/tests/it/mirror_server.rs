//! A mirror on the loopback address that serves a map of files, well or as badly as a test wants it.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

/// How the server treats a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    /// Sends it, from the offset asked for.
    Well,
    /// Sends it from the start, whatever was asked for.
    WithoutRanges,
    /// Closes the connection after that many bytes, the first time; then well.
    CutOnce(usize),
    /// The same, but it cannot resume afterwards.
    CutOnceWithoutRanges(usize),
    /// Closes the connection after that many bytes, every time.
    CutAlways(usize),
    /// Announces no size and sends the file, then as many further bytes as anyone reads.
    Endless,
    /// Takes the request and never answers.
    Hang,
    /// Sends the head and some bytes, then nothing more.
    HangAfter(usize),
    /// Answers with a status.
    Status(u16),
}

#[derive(Default)]
struct State {
    files: BTreeMap<String, Arc<[u8]>>,
    manners: BTreeMap<String, Manner>,
    log: Vec<String>,
}

/// A running mirror; it stops when dropped.
pub(crate) struct MirrorServer {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    stopping: Arc<AtomicBool>,
}

impl MirrorServer {
    pub(crate) fn start(files: BTreeMap<String, Vec<u8>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = MirrorServer {
            address: listener.local_addr().unwrap(),
            state: Arc::default(),
            stopping: Arc::default(),
        };
        for (path, bytes) in files {
            server.put(&path, bytes);
        }
        let (state, stopping) = (Arc::clone(&server.state), Arc::clone(&server.stopping));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stopping.load(Ordering::SeqCst) {
                    return;
                }
                let state = Arc::clone(&state);
                std::thread::spawn(move || stream.map(|stream| serve(stream, &state)));
            }
        });
        server
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/debian", self.address)
    }

    /// Serves these bytes at a path from now on.
    pub(crate) fn put(&self, path: &str, bytes: Vec<u8>) {
        self.state
            .lock()
            .unwrap()
            .files
            .insert(path.to_owned(), bytes.into());
    }

    /// Treats the paths that contain `part` like this from now on.
    pub(crate) fn treat(&self, part: &str, manner: Manner) {
        self.state
            .lock()
            .unwrap()
            .manners
            .insert(part.to_owned(), manner);
    }

    /// Returns the requests so far whose path contains `part`: path and offset.
    pub(crate) fn requests(&self, part: &str) -> Vec<String> {
        let state = self.state.lock().unwrap();
        state
            .log
            .iter()
            .filter(|line| line.contains(part))
            .cloned()
            .collect()
    }
}

impl Drop for MirrorServer {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::SeqCst);
        // Wakes the listener, which then sees that it is to stop.
        let _ = TcpStream::connect(self.address);
    }
}

/// Answers one request. Write errors are the client's hanging up, which is its good right.
fn serve(mut stream: TcpStream, state: &Mutex<State>) {
    let Some((path, offset)) = read_request(&stream) else {
        return;
    };
    let (bytes, manner) = {
        let mut state = state.lock().unwrap();
        state.log.push(match offset {
            0 => path.clone(),
            _ => format!("{path} from {offset}"),
        });
        let bytes = state.files.get(&path).cloned();
        let manner = state
            .manners
            .iter_mut()
            .find(|(part, _)| path.contains(part.as_str()));
        (
            bytes,
            manner.map_or(Manner::Well, |(_, manner)| step(manner)),
        )
    };
    let Some(bytes) = bytes else {
        let _ = stream
            .write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        return;
    };
    let from = match manner {
        Manner::WithoutRanges | Manner::CutOnceWithoutRanges(_) => 0,
        _ => offset.min(bytes.len()),
    };
    let _ = answer(&mut stream, manner, &bytes, from);
}

/// Returns how to treat this request and changes how the next one is treated.
fn step(manner: &mut Manner) -> Manner {
    let current = *manner;
    *manner = match current {
        Manner::CutOnce(_) => Manner::Well,
        Manner::CutOnceWithoutRanges(_) => Manner::WithoutRanges,
        other => other,
    };
    current
}

fn answer(
    stream: &mut TcpStream,
    manner: Manner,
    bytes: &[u8],
    from: usize,
) -> std::io::Result<()> {
    let body = &bytes[from..];
    let head = match from {
        0 => "HTTP/1.1 200 OK\r\n".to_owned(),
        _ => format!(
            "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes {from}-{}/{}\r\n",
            bytes.len().saturating_sub(1),
            bytes.len()
        ),
    };
    let sized = format!(
        "{head}Connection: close\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    match manner {
        Manner::Well | Manner::WithoutRanges => {
            stream.write_all(sized.as_bytes())?;
            stream.write_all(body)
        }
        Manner::CutOnce(count) | Manner::CutOnceWithoutRanges(count) | Manner::CutAlways(count) => {
            stream.write_all(sized.as_bytes())?;
            stream.write_all(&body[..count.min(body.len())])
        }
        Manner::Endless => {
            stream.write_all(format!("{head}Connection: close\r\n\r\n").as_bytes())?;
            stream.write_all(body)?;
            loop {
                stream.write_all(&[0; 4096])?;
            }
        }
        Manner::Hang => until_hung_up(stream),
        Manner::HangAfter(count) => {
            stream.write_all(sized.as_bytes())?;
            stream.write_all(&body[..count.min(body.len())])?;
            until_hung_up(stream)
        }
        Manner::Status(status) => {
            let head =
                format!("HTTP/1.1 {status} No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            stream.write_all(head.as_bytes())
        }
    }
}

fn until_hung_up(stream: &mut TcpStream) -> std::io::Result<()> {
    stream.read(&mut [0; 1]).map(drop)
}

fn read_request(stream: &TcpStream) -> Option<(String, usize)> {
    let mut lines = BufReader::new(stream).lines();
    let path = lines.next()?.ok()?.split(' ').nth(1)?.to_owned();
    let mut offset = 0;
    for line in lines {
        let line = line.ok()?.to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(range) = line.strip_prefix("range: bytes=") {
            offset = range.split('-').next()?.parse().ok()?;
        }
    }
    Some((path, offset))
}
