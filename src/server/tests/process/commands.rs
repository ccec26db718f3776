//! The commands beside `serve`, as an operator meets them, and what `serve` tells the init system.

use std::{
    ffi::OsString,
    fs,
    net::TcpListener,
    os::unix::{fs::PermissionsExt, net::UnixDatagram},
    path::Path,
    process::Command,
    time::Duration,
};

use crate::server::{Server, comity};

/// How a command ended, and what it printed.
#[derive(Debug)]
struct Done {
    code: Option<i32>,
    output: String,
    errors: String,
}

impl Done {
    fn of(command: &mut Command) -> Self {
        let done = command.output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Self {
            code: done.status.code(),
            output: text(done.stdout),
            errors: text(done.stderr),
        }
    }

    /// A line of what it printed begins so.
    fn says(&self, begin: &str) {
        let mut lines = self.output.lines();
        assert!(
            lines.any(|line| line.starts_with(begin)),
            "{begin}: {self:?}"
        );
    }

    fn ended(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self:?}");
        self
    }
}

fn doctor(folder: &Path, environment: &[(&str, &str)]) -> Done {
    Done::of(comity(folder, environment).arg("doctor"))
}

/// The binary with a configuration file and nothing else.
fn with_file(file: &Path, arguments: &[&str]) -> Done {
    let mut command = comity(file, &[]);
    let set = command.get_envs().map(|(name, _)| name.to_owned());
    for name in set.collect::<Vec<OsString>>() {
        command.env_remove(name);
    }
    Done::of(command.arg("--config").arg(file).args(arguments))
}

/// Before the first start, beside the server as it runs, and after it: nothing is bad, and nothing is disturbed.
#[test]
fn doctor_lets_a_good_server_be() {
    let folder = tempfile::tempdir().unwrap();
    let before = doctor(folder.path(), &[]).ended(0);
    for line in [
        "ok    configuration: for localhost",
        "ok    certificate: none",
        "ok    port: 127.0.0.1:0 is free",
        "ok    clock: ",
        "ok    keys: none yet",
        "ok    store: none yet",
    ] {
        before.says(line);
    }
    let mut server = Server::start(folder.path(), &[]);
    let address = server.address.to_string();
    let beside = doctor(folder.path(), &[("LISTEN__CLIENT", address.as_str())]).ended(0);
    beside.says(&format!("doubt port: {address} is taken"));
    beside.says("doubt store: ");
    server.register("alice", "a secret of alice");
    assert!(server.stop().success());
    let after = doctor(folder.path(), &[]).ended(0);
    after.says("ok    keys: signing with ed25519:");
    after.says("ok    store: opens");
}

/// A port that is taken may be the server's own, so the doctor only doubts; one that can't be had at all is bad. `serve` ends at both.
#[test]
fn doctor_looks_at_ports() {
    let folder = tempfile::tempdir().unwrap();
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = other.local_addr().unwrap().to_string();
    // Set apart for documentation: nobody's address (RFC 5737).
    let nobodys = "192.0.2.1:8008";
    for (address, line, code) in [
        (&*taken, format!("doubt port: {taken} is taken"), 0),
        (nobodys, format!("BAD   port: {nobodys}: "), 1),
    ] {
        let environment = [("LISTEN__CLIENT", address)];
        let done = doctor(folder.path(), &environment).ended(code);
        done.says(&line);
        let served = Done::of(comity(folder.path(), &environment).arg("serve")).ended(1);
        let why = format!("error: cannot listen on {address} (listen.client): ");
        assert!(served.errors.contains(&why), "{served:?}");
    }
}

/// Threat B6: a key that is damaged or that others may read is bad, in the words in which `serve` refuses it; it is left as it is.
#[test]
fn doctor_looks_at_keys() {
    for (name, text, mode, why) in [
        ("signing.key", "ed25519 a_1", 0o600, "signing.key: "),
        ("signing.key", "ed25519 a_1", 0o640, "(mode 640): chmod 600"),
        (
            "token.key",
            "short",
            0o600,
            "token.key: not a key of 32 bytes",
        ),
        ("token.key", "short", 0o604, "(mode 604): chmod 600"),
        (
            "old-signing.keys",
            "ed25519",
            0o600,
            "old-signing.keys: not of the form",
        ),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let done = doctor(folder.path(), &[]).ended(1);
        let mut bad = done.output.lines().filter(|line| line.starts_with("BAD "));
        let line = bad.next().unwrap_or_default();
        assert!(
            line.starts_with("BAD   keys: ") && line.contains(why),
            "{done:?}"
        );
        assert_eq!(bad.next(), None, "{done:?}");
        let end = "error: the server would not run (1 of the checks are bad)\n";
        assert_eq!(done.errors, end);
        let served = Done::of(comity(folder.path(), &[]).arg("serve")).ended(1);
        assert!(served.errors.contains(why), "{served:?}");
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
    }
}

/// What `config reference` prints is a configuration once the server has a name, also with each default written out.
#[test]
fn the_reference_passes_the_check() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("comity.toml");
    fs::write(&file, "").unwrap();
    let reference = with_file(&file, &["config", "reference"]).ended(0).output;

    fs::write(&file, &reference).unwrap();
    let nameless = with_file(&file, &["config", "check"]).ended(1);
    assert!(
        nameless.errors.starts_with("error: server_name is not set"),
        "{nameless:?}"
    );

    let named = reference.replace("#server_name =\n", "server_name = \"example.org\"\n");
    let written_out = named.lines().map(|line| match line.strip_prefix('#') {
        Some(key) if key.starts_with(|c: char| c.is_ascii_lowercase()) && !key.ends_with('=') => {
            key
        }
        _ => line,
    });
    let written_out = written_out.collect::<Vec<_>>().join("\n");
    assert_ne!(named, written_out);
    for text in [named, written_out] {
        fs::write(&file, &text).unwrap();
        let checked = with_file(&file, &["config", "check"]).ended(0);
        let says =
            "The configuration can be used: example.org at https://example.org, data in ./data.\n";
        assert_eq!(
            (checked.output.as_str(), checked.errors.as_str()),
            (says, "")
        );
    }
}

/// A key that nobody knows is refused by every command that reads the configuration, with the one that was meant.
#[test]
fn an_unknown_key_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("comity.toml");
    let text = "server_name = \"example.org\"\n[listen]\nclint = \"127.0.0.1:0\"\n";
    fs::write(&file, text).unwrap();
    let (what, meant) = (
        "there is no key `listen.clint`",
        "did you mean `listen.client`?\n",
    );
    for arguments in [&["config", "check"][..], &["serve"], &["user", "list"]] {
        let done = with_file(&file, arguments).ended(1);
        assert!(
            done.errors.starts_with(&format!("error: {what}")) && done.errors.ends_with(meant),
            "{arguments:?}: {done:?}"
        );
        assert_eq!(done.output, "");
    }
    let done = with_file(&file, &["doctor"]).ended(1);
    done.says(&format!("BAD   configuration: {what}"));
    let environment = [("LISTEN__CLINT", "127.0.0.1:0")];
    let done = Done::of(comity(folder.path(), &environment).args(["config", "check"])).ended(1);
    let why =
        "error: there is no variable COMITY_LISTEN__CLINT: did you mean COMITY_LISTEN__CLIENT?\n";
    assert_eq!(done.errors, why);
}

/// `Type=notify` of systemd: told once requests are answered, and when the end begins.
#[test]
fn systemd_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    let long = Duration::from_secs(60);
    socket.set_read_timeout(Some(long)).unwrap();
    let heard = || {
        let mut buffer = [0; 512];
        let length = socket.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..length])
            .trim_end()
            .to_owned()
    };
    let data = folder.path().join("data");
    let mut command = comity(&data, &[("STORAGE__ENGINE", "memory")]);
    command.env("NOTIFY_SOCKET", &path).arg("serve");
    let mut server = Server::run(command);
    assert_eq!(heard(), "READY=1");
    assert_eq!(server.request("GET", "/_comity/ready", "", "").status, 200);
    assert!(server.stop().success());
    assert_eq!(heard(), "STOPPING=1");
}
