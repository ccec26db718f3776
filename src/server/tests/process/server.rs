//! A server in a process of its own, and what one can see of it from outside.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, mpsc},
    time::Duration,
};

use comity_testkit::spec;
use serde_json::Value;

/// Longer than anything may take.
const LONG: Duration = Duration::from_secs(60);

/// The binary.
pub const COMITY: &str = env!("CARGO_BIN_EXE_comity");

/// A running server. Dropping it kills it, and looks for what must not be in its log.
pub struct Server {
    child: Child,
    pub address: SocketAddr,
    log: Arc<Mutex<String>>,
    /// The passwords and tokens of those who registered.
    secrets: Mutex<Vec<String>>,
    reading: Option<std::thread::JoinHandle<()>>,
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    head: String,
    pub text: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("no JSON: {}", self.text))
    }

    /// A header's value, empty where there is none.
    pub fn header(&self, name: &str) -> &str {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        let mut found = lines.filter(|(one, _)| one.eq_ignore_ascii_case(name));
        found.next().map_or("", |(_, value)| value)
    }

    pub fn ok(self) -> Value {
        assert_eq!(self.status, 200, "{}", self.text);
        self.json()
    }
}

/// The binary with its data in `folder`, set up by `environment` (keys without `COMITY_`), with [`comity_testkit::lanes`] lanes
/// where that doesn't say.
pub fn comity(folder: &Path, environment: &[(&str, &str)]) -> Command {
    comity_at(Path::new(COMITY), folder, environment)
}

/// As [`comity`], of a binary that lies elsewhere.
pub fn comity_at(binary: &Path, folder: &Path, environment: &[(&str, &str)]) -> Command {
    let mut command = Command::new(binary);
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("COMITY_")) {
        command.env_remove(name);
    }
    let all = [
        ("SERVER_NAME", "localhost"),
        ("LISTEN__CLIENT", "127.0.0.1:0"),
        ("REGISTRATION__OPEN", "true"),
    ];
    command.env("COMITY_DATA_DIR", folder);
    command.env("COMITY_STORAGE__LANES", comity_testkit::lanes().to_string());
    for (name, value) in all.iter().chain(environment) {
        command.env(format!("COMITY_{name}"), value);
    }
    command
}

impl Server {
    /// Starts it and waits until it serves.
    pub fn start(folder: &Path, environment: &[(&str, &str)]) -> Self {
        let mut command = comity(folder, environment);
        command.arg("serve");
        Self::run(command)
    }

    /// As [`Server::start`], allowed to open so many files.
    pub fn with_files(folder: &Path, environment: &[(&str, &str)], files: u32) -> Self {
        let binary = comity(folder, environment);
        let mut command = Command::new("sh");
        let script = format!("ulimit -n {files} && exec {COMITY} serve");
        command.args(["-c", &script]);
        for (name, value) in binary.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        Self::run(command)
    }

    /// Starts a server by its command and waits until it serves.
    pub fn run(mut command: Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap());
        let (ready, serving) = mpsc::channel();
        let log = Arc::new(Mutex::new(String::new()));
        let written = Arc::clone(&log);
        let reading = std::thread::spawn(move || {
            for line in lines.split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line).into_owned();
                if let Some(address) = served(&line) {
                    let _ = ready.send(address);
                }
                let mut log = written.lock().unwrap();
                log.push_str(&line);
                log.push('\n');
            }
        });
        let Ok(address) = serving.recv_timeout(LONG) else {
            panic!("it does not serve: {}", log.lock().unwrap());
        };
        Self {
            child,
            address,
            log,
            secrets: Mutex::default(),
            reading: Some(reading),
        }
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// The most memory that it had so far, in bytes.
    pub fn peak_memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM:"));
        let kib = line
            .and_then(|line| line.split_whitespace().nth(1))
            .unwrap();
        kib.parse::<u64>().unwrap() * 1024
    }

    /// Asks it to stop, and waits for its end and for the rest of its log.
    pub fn stop(&mut self) -> ExitStatus {
        let stopped = Command::new("kill")
            .args(["-TERM", &self.child.id().to_string()])
            .status();
        assert!(stopped.unwrap().success());
        self.ended()
    }

    /// Kills it.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.ended();
    }

    /// Waits for its end.
    pub fn ended(&mut self) -> ExitStatus {
        let status = self.child.wait().unwrap();
        if let Some(reading) = self.reading.take() {
            reading.join().unwrap();
        }
        status
    }

    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        stream
    }

    /// A request on a connection of its own. `path` and `headers` are sent as they are.
    pub fn request(
        &self,
        method: &str,
        path: &str,
        headers: &str,
        body: impl AsRef<[u8]>,
    ) -> Answer {
        ask(self.connect(), method, path, headers, body).unwrap()
    }

    /// With a token and a JSON body.
    pub fn json(&self, method: &str, path: &str, token: &str, body: Value) -> Answer {
        let headers = match token {
            "" => String::new(),
            token => format!("authorization: Bearer {token}\r\n"),
        };
        let path = format!("/_matrix/client/v3/{path}");
        self.request(method, &path, &headers, body.to_string())
    }

    /// Registers a user; the answer.
    pub fn register(&self, name: &str, password: &str) -> Value {
        let body = serde_json::json!({
            "username": name, "password": password, "auth": {"type": "m.login.dummy"}, "refresh_token": true,
        });
        let answer = self.json("POST", "register", "", body).ok();
        let tokens = ["access_token", "refresh_token"].map(|key| answer[key].as_str());
        let told = tokens.into_iter().flatten().chain([password]);
        self.secrets.lock().unwrap().extend(told.map(str::to_owned));
        answer
    }
}

/// E10: whatever the test was about, no line of the log has a password or a token in it.
impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            return;
        }
        if let Some(reading) = self.reading.take() {
            reading.join().unwrap();
        }
        let log = self.log();
        for secret in self.secrets.get_mut().unwrap() {
            let line = log.lines().find(|line| line.contains(secret.as_str()));
            assert_eq!(line, None, "a secret is logged");
        }
    }
}

/// Where it serves clients, if this is the line that says so, in either form.
fn served(line: &str) -> Option<SocketAddr> {
    let (_, rest) = line
        .split_once(" client=")
        .or_else(|| line.split_once("\"client\":\""))
        .filter(|_| line.contains("serving"))?;
    let address = rest.split([' ', '"']).next()?;
    Some(address.parse().expect("an address in the log"))
}

/// Sends a request and reads the answer to its end, which is as the specification has it.
pub fn ask(
    stream: TcpStream,
    method: &str,
    path: &str,
    headers: &str,
    body: impl AsRef<[u8]>,
) -> std::io::Result<Answer> {
    let answer = exchange(stream, method, path, headers, body)?;
    assert_as_specified(method, path, answer.status, &answer.text);
    Ok(answer)
}

/// Sends a request and reads whatever comes to its end.
pub fn exchange(
    mut stream: TcpStream,
    method: &str,
    path: &str,
    headers: &str,
    body: impl AsRef<[u8]>,
) -> std::io::Result<Answer> {
    let (body, host) = (body.as_ref(), stream.peer_addr()?);
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\ncontent-length: {length}\r\n{headers}\r\n"
    );
    stream.write_all(&[head.as_bytes(), body].concat())?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let (head, text) = text.split_once("\r\n\r\n").unwrap_or_default();
    let status = head.get(9..12).and_then(|status| status.parse().ok());
    let status = status.ok_or(std::io::ErrorKind::UnexpectedEof)?;
    Ok(Answer {
        status,
        head: head.to_owned(),
        text: text.to_owned(),
    })
}

/// An answer in JSON is one that the specification knows; what the HTTP layer refuses has none.
fn assert_as_specified(method: &str, path: &str, status: u16, text: &str) {
    if serde_json::from_str::<Value>(text).is_ok() {
        spec::check((method, path), (status, text.as_bytes()), true);
    }
}

/// Every file below a folder.
pub fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
        match entry.file_type().unwrap() {
            kind if kind.is_dir() => files.extend(self::files(&entry.path())),
            kind if kind.is_file() => files.push(entry.path()),
            _ => {}
        }
    }
    files
}
