//! A hub of models on this machine, for tests: lists the files of one repository, and serves them from any byte on.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

type Files = BTreeMap<String, Vec<u8>>;

/// A hub that is served until it is dropped.
pub struct Served {
    pub endpoint: String,
    address: SocketAddr,
    state: Arc<State>,
    thread: Option<JoinHandle<()>>,
}

struct State {
    repository: String,
    files: Files,
    asked: Mutex<Vec<String>>,
    /// The SHA-256 of some files, as the list gives them.
    hashes: Mutex<BTreeMap<String, String>>,
    /// Bytes after which answers break off, and answers that bring any.
    cut: Mutex<(usize, usize)>,
    done: AtomicBool,
}

impl Served {
    pub fn new(repository: &str, files: Files) -> Served {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State {
            repository: repository.into(),
            files,
            asked: Mutex::default(),
            hashes: Mutex::default(),
            cut: Mutex::new((usize::MAX, usize::MAX)),
            done: AtomicBool::new(false),
        });
        let of_thread = state.clone();
        let thread = std::thread::spawn(move || {
            for connection in listener.incoming() {
                if of_thread.done.load(Ordering::Relaxed) {
                    break;
                }
                // Who asks may go away.
                let _ = of_thread.answer(connection.unwrap());
            }
        });
        Served { endpoint: format!("http://{address}"), address, state, thread: Some(thread) }
    }

    /// What was asked for, with its headers.
    #[allow(dead_code)]
    pub fn asked(&self) -> Vec<String> {
        self.state.asked.lock().unwrap().clone()
    }

    /// Lists a file with a SHA-256.
    #[allow(dead_code)]
    pub fn says(&self, name: &str, sha256: &str) {
        self.state.hashes.lock().unwrap().insert(name.into(), sha256.into());
    }

    /// Lets answers with files break off after so many bytes, and all but the first so many bring none.
    #[allow(dead_code)]
    pub fn cut(&self, after: usize, answers: usize) {
        *self.state.cut.lock().unwrap() = (after, answers);
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.state.done.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.address);
        self.thread.take().unwrap().join().unwrap();
    }
}

impl State {
    fn answer(&self, mut connection: TcpStream) -> std::io::Result<()> {
        let mut request = String::new();
        let mut reader = BufReader::new(connection.try_clone()?);
        while !request.ends_with("\r\n\r\n") && reader.read_line(&mut request)? > 0 {}
        self.asked.lock().unwrap().push(request.clone());
        let path = request.split(' ').nth(1).unwrap_or("").to_string();
        let range = request.to_lowercase();
        let from: usize =
            range.split_once("bytes=").map_or(0, |(_, rest)| rest.split('-').next().unwrap().parse().unwrap());
        let (status, body, is_file) = if path.contains("/gated") {
            ("401 Unauthorized", Vec::new(), false)
        } else if path.starts_with(&format!("/api/models/{}/", self.repository)) {
            let hashes = self.hashes.lock().unwrap();
            let lfs = |name: &String| {
                hashes.get(name).map_or(String::new(), |hash| format!(",\"lfs\":{{\"sha256\":\"{hash}\"}}"))
            };
            let listed = |(name, bytes): (&String, &Vec<u8>)| {
                format!("{{\"rfilename\":\"{name}\",\"size\":{}{}}}", bytes.len(), lfs(name))
            };
            let siblings: Vec<String> = self.files.iter().map(listed).collect();
            ("200 OK", format!("{{\"sha\":\"0123abcd\",\"siblings\":[{}]}}", siblings.join(",")).into_bytes(), false)
        } else {
            let file = path.strip_prefix(&format!("/{}/resolve/0123abcd/", self.repository));
            match file.and_then(|name| self.files.get(name)) {
                Some(bytes) if from > 0 => ("206 Partial Content", bytes[from..].to_vec(), true),
                Some(bytes) => ("200 OK", bytes.clone(), true),
                None => ("404 Not Found", Vec::new(), false),
            }
        };
        let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
        connection.write_all(head.as_bytes())?;
        let mut cut = self.cut.lock().unwrap();
        let sent = match (is_file, cut.1) {
            (false, _) => body.len(),
            (true, 0) => 0,
            (true, _) => cut.0.min(body.len()),
        };
        cut.1 -= usize::from(is_file && cut.1 > 0);
        connection.write_all(&body[..sent])
    }
}
