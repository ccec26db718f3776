#!/usr/bin/env python3
"""A Docker Engine API small enough for Complement, whose containers are plain processes.

    engine.py SOCKET STATE_DIR ENTRYPOINT
    DOCKER_HOST=unix://SOCKET go test ./tests/...

Complement drives homeservers through Docker. Where there is no Docker, this answers the dozen calls it makes. A
container is a folder and a process: ENTRYPOINT, in a mount namespace of its own in which /etc/hosts names every
server of its network. It finds in its environment

    BIND_IP         the loopback address it must bind: 8008 for plain HTTP, 8448 for TLS
    COMPLEMENT_DIR  what Complement copied to /complement: ca/ca.crt, ca/ca.key, appservice/*.yaml
    DATA_DIR        its data, which is all that a commit (an image made from a container) keeps

besides what Complement sets (SERVER_NAME) and the engine's own COMITY_… variables. Ports are published on 127.0.0.1
by a forwarder that lives as long as the container, so that they stay the same over a restart. Calls are answered one
at a time, under one lock: Complement makes few, and none of them long. Needs util-linux, and root or user namespaces.
"""

from __future__ import annotations

import http.server
import io
import json
import os
import re
import shutil
import signal
import socket
import socketserver
import struct
import subprocess
import sys
import tarfile
import threading
import urllib.parse
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

API_VERSION = "1.47"
PORTS = (8008, 8448)
# Networks are 127.NET.0.0/16; the lowest are in use on many machines. Engines that run side by side begin apart.
NETWORKS = sorted(range(20, 250), key=lambda index: (index - 11 * os.getpid()) % 251)
# A server's /etc/hosts is written once, but others may join its network later: hs1 to hs9 are named at once.
SERVERS_A_NETWORK = 9
MAX_BODY = 64 << 20
MAX_LOG = 16 << 20
STOP_SECONDS = 10
LABEL = re.compile(r'LABEL "?([^"=]+|[^"]+)"?="?(.*?)"?', re.DOTALL)

Labels = dict[str, str]
Json = Any


@dataclass
class Network:
    """A Docker network: the second octet of its addresses, and the names that have one."""

    index: int
    labels: Labels
    id: str = field(default_factory=lambda: uuid.uuid4().hex * 2)
    names: dict[str, int] = field(default_factory=dict)

    def address(self, number: int) -> str:
        return f"127.{self.index}.0.{number}"

    def address_of(self, name: str) -> str:
        return self.address(self.names.setdefault(name, len(self.names) + 1))

    def hosts(self, runner: str) -> str:
        """The network as /etc/hosts; `runner` names the machine the suite runs on."""
        lines = [f"127.0.0.1 localhost {runner}"]
        taken = {number: name for name, number in self.names.items()}
        for number in range(1, max(SERVERS_A_NETWORK, len(taken)) + 1):
            lines.append(f"{self.address(number)} {taken.get(number, f'hs{number}')}")
        return "\n".join(lines) + "\n"


@dataclass
class Image:
    """What a commit kept: a folder with `data`, and the labels, in which Complement stores access tokens."""

    folder: Path
    labels: Labels
    tag: str


class Publisher:
    """A port of 127.0.0.1, forwarded to a port of a container's address until it is closed."""

    def __init__(self, address: str, port: int) -> None:
        self.target = (address, port)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self) -> None:
        while True:
            try:
                near, _ = self.listener.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(self.target, 5)
            except OSError:
                near.close()
                continue
            far.settimeout(None)
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=self.pump, args=(source, sink), daemon=True).start()

    @staticmethod
    def pump(source: socket.socket, sink: socket.socket) -> None:
        try:
            while chunk := source.recv(65536):
                sink.sendall(chunk)
        except OSError:
            pass
        for end in (source, sink):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def close(self) -> None:
        try:
            # close() alone would leave the other thread waiting in accept().
            self.listener.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.listener.close()


def sockets(folder: str, names: list[str]) -> list[str]:
    """Those of the names that are sockets: no file of an image, and not to be copied."""
    return [name for name in names if (Path(folder) / name).is_socket()]


class Container:
    """A folder, an address and, once started, a process."""

    def __init__(self, engine: Engine, name: str, body: Json) -> None:
        self.id = uuid.uuid4().hex * 2
        self.name = name
        self.engine = engine
        self.labels: Labels = body.get("Labels") or {}
        self.environment = dict(entry.partition("=")[::2] for entry in body.get("Env") or [])
        network, endpoint = next(iter(body["NetworkingConfig"]["EndpointsConfig"].items()))
        self.network = engine.networks[network]
        self.address = self.network.address_of((endpoint.get("Aliases") or [name])[0])
        self.folder = engine.state / self.id[:12]
        self.process: subprocess.Popen[bytes] | None = None
        self.paused = False
        self.published: dict[int, Publisher] = {}
        image = engine.images.get(body["Image"].removeprefix("sha256:"))
        if image:
            shutil.copytree(image.folder, self.folder)
            self.labels = {**image.labels, **self.labels}
        for part in ("complement", "data"):
            (self.folder / part).mkdir(parents=True, exist_ok=True)

    @property
    def log(self) -> Path:
        return self.folder / "log"

    def start(self) -> None:
        if not self.published:
            self.published = {port: Publisher(self.address, port) for port in PORTS}
        hosts = self.folder / "hosts"
        hosts.write_text(self.network.hosts(self.engine.runner))
        become_root = [] if os.geteuid() == 0 else ["--map-root-user"]
        enter = 'mount --make-rprivate / && mount --bind "$1" /etc/hosts && exec "$2"'
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                ["unshare", "--mount", *become_root, "sh", "-c", enter, "sh", hosts, self.engine.entrypoint],
                start_new_session=True,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={
                    **self.engine.passed_on,
                    "PATH": os.environ["PATH"],
                    "BIND_IP": self.address,
                    "COMPLEMENT_DIR": str(self.folder / "complement"),
                    "DATA_DIR": str(self.folder / "data"),
                    **self.environment,
                },
            )

    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def signal(self, number: int) -> None:
        if self.process:
            try:
                os.killpg(self.process.pid, number)
            except ProcessLookupError:
                pass

    def stop(self, seconds: int) -> None:
        if self.process and self.running():
            self.signal(signal.SIGCONT)
            self.signal(signal.SIGTERM)
            try:
                self.process.wait(seconds)
            except subprocess.TimeoutExpired:
                self.kill()

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        if self.process:
            self.process.wait()

    def pause(self, paused: bool) -> None:
        self.paused = paused
        self.signal(signal.SIGSTOP if paused else signal.SIGCONT)

    def remove(self) -> None:
        self.kill()
        for publisher in self.published.values():
            publisher.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def commit(self, labels: Labels, tag: str) -> tuple[str, Image]:
        """Makes an image of the data, to which nothing is written meanwhile."""
        identity = uuid.uuid4().hex * 2
        image = Image(self.engine.state / f"image-{identity[:12]}", {**self.labels, **labels}, tag)
        was_paused = self.paused
        self.pause(True)
        try:
            shutil.copytree(self.folder / "data", image.folder / "data", ignore=sockets)
        finally:
            self.pause(was_paused)
        return identity, image

    def unpack(self, archive: bytes) -> None:
        """Puts the files of a tar into the folder, and nowhere else."""
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            for entry in tar:
                path = Path(os.path.normpath(f"{self.folder}/{entry.name}"))
                if not path.is_relative_to(self.folder):
                    raise ValueError(f"{entry.name} leads out of the container")
                content = tar.extractfile(entry)
                if content is not None:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(content.read())

    def last_log(self) -> bytes:
        """The end of what the process wrote, as one frame of Docker's stream."""
        text = b""
        if self.log.exists():
            with self.log.open("rb") as log:
                log.seek(max(0, self.log.stat().st_size - MAX_LOG))
                text = log.read(MAX_LOG)
        return b"\x01\0\0\0" + struct.pack(">I", len(text)) + text

    def inspect(self) -> Json:
        running = self.running()
        ports = {
            f"{port}/tcp": [{"HostIp": "127.0.0.1", "HostPort": str(publisher.port)}]
            for port, publisher in self.published.items()
        }
        return {
            "Id": self.id,
            "Name": "/" + self.name,
            "State": {"Running": running, "Paused": self.paused, "Status": "running" if running else "exited"},
            "Config": {"Labels": self.labels, "Volumes": None, "Tty": False},
            "NetworkSettings": {"Ports": ports if running else {}},
        }


@dataclass
class Answer:
    """What goes back: a JSON value, or bytes as they are."""

    status: int = 200
    body: Json = None
    raw: bytes | None = None
    kind: str = "application/json"

    def content(self) -> bytes:
        if self.raw is not None:
            return self.raw
        return b"" if self.body is None else json.dumps(self.body).encode()


@dataclass
class Call:
    """One request of Docker's API, its path without the version."""

    method: str
    path: str
    query: dict[str, list[str]]
    body: bytes

    def one(self, name: str, default: str = "") -> str:
        return self.query.get(name, [default])[0]

    def selects(self, labels: Labels) -> bool:
        """Whether the labels of a thing are those that the call filters by."""
        wanted = json.loads(self.one("filters", "{}")).get("label", [])
        if isinstance(wanted, dict):
            wanted = [label for label, on in wanted.items() if on]
        for label in wanted:
            name, equals, value = label.partition("=")
            if name not in labels or (equals and labels[name] != value):
                return False
        return True


class Engine:
    """All there is, and what Docker's API does to it."""

    def __init__(self, state: Path, entrypoint: Path) -> None:
        self.state = state
        self.entrypoint = entrypoint
        self.runner = os.environ.get("COMPLEMENT_HOSTNAME_RUNNING_COMPLEMENT", "host.docker.internal")
        self.passed_on = {name: value for name, value in os.environ.items() if name.startswith("COMITY_")}
        self.lock = threading.Lock()
        self.networks: dict[str, Network] = {}
        self.containers: dict[str, Container] = {}
        self.images: dict[str, Image] = {}

    def answer(self, call: Call) -> Answer:
        with self.lock:
            return self.route(call)

    def close(self) -> None:
        for container in self.containers.values():
            container.remove()
        for image in self.images.values():
            shutil.rmtree(image.folder, ignore_errors=True)

    def route(self, call: Call) -> Answer:
        match call.method, call.path.strip("/").split("/"):
            case _, ["_ping"]:
                return Answer(raw=b"OK", kind="text/plain")
            case "GET", ["containers", "json"]:
                containers = [it for it in self.containers.values() if call.selects(it.labels)]
                return Answer(body=[{"Id": it.id, "Names": ["/" + it.name], "Labels": it.labels} for it in containers])
            case "POST", ["containers", "create"]:
                container = Container(self, call.one("name", "unnamed"), json.loads(call.body))
                self.containers[container.id] = container
                return Answer(201, {"Id": container.id, "Warnings": []})
            case _, ["containers", wanted, *action] if wanted in self.containers:
                return self.act(self.containers[wanted], call.method, "/".join(action), call)
            case "POST", ["commit"] if call.one("container") in self.containers:
                changes = [LABEL.fullmatch(change) for change in call.query.get("changes", [])]
                labels = {match[1]: match[2] for match in changes if match}
                tag = f"{call.one('repo')}:{call.one('tag')}"
                identity, image = self.containers[call.one("container")].commit(labels, tag)
                self.images[identity] = image
                return Answer(201, {"Id": "sha256:" + identity})
            case "GET", ["images", "json"]:
                images = [it for it in self.images.items() if call.selects(it[1].labels)]
                return Answer(
                    body=[{"Id": "sha256:" + id, "RepoTags": [it.tag], "Labels": it.labels} for id, it in images]
                )
            case "DELETE", ["images", *name]:
                removed = self.images.pop(urllib.parse.unquote("/".join(name)).removeprefix("sha256:"), None)
                if removed:
                    shutil.rmtree(removed.folder, ignore_errors=True)
                return Answer(body=[])
            case "GET", ["networks"]:
                networks = [it for it in self.networks.items() if call.selects(it[1].labels)]
                return Answer(body=[{"Id": it.id, "Name": name, "Labels": it.labels} for name, it in networks])
            case "POST", ["networks", "create"]:
                return self.create_network(json.loads(call.body))
            case "DELETE", ["networks", wanted]:
                for gone in [it for it, network in self.networks.items() if wanted in (it, network.id)]:
                    del self.networks[gone]
                return Answer(204)
        return Answer(404, {"message": f"no such thing: {call.method} {call.path}"})

    def create_network(self, body: Json) -> Answer:
        # Complement removes networks that still have containers, as Docker would not; theirs stay taken.
        used = {network.index for network in self.networks.values()}
        used |= {container.network.index for container in self.containers.values()}
        free = next((index for index in NETWORKS if index not in used), None)
        if free is None:
            return Answer(500, {"message": "all networks are in use"})
        network = self.networks[body["Name"]] = Network(free, body.get("Labels") or {})
        return Answer(201, {"Id": network.id, "Warning": ""})

    def act(self, container: Container, method: str, action: str, call: Call) -> Answer:
        match method, action:
            case "GET", "json":
                return Answer(body=container.inspect())
            case "GET", "logs":
                return Answer(raw=container.last_log(), kind="application/vnd.docker.raw-stream")
            case "PUT", "archive":
                container.unpack(call.body)
                return Answer(raw=b"")
            case "DELETE", "":
                container.remove()
                del self.containers[container.id]
            case "POST", "start":
                container.start()
            case "POST", "stop":
                container.stop(int(call.one("t", str(STOP_SECONDS))))
            case "POST", "kill":
                name = call.one("signal", "KILL").removeprefix("SIG")
                if name in ("KILL", "9"):
                    container.kill()
                else:
                    container.signal(signal.Signals[f"SIG{name}"])
            case "POST", "pause" | "unpause":
                container.pause(action == "pause")
            case _:
                return Answer(404, {"message": f"no such action: {method} {action}"})
        return Answer(204)


class Handler(http.server.BaseHTTPRequestHandler):
    """HTTP/1.1 on the Unix socket."""

    protocol_version = "HTTP/1.1"
    engine: Engine

    def log_message(self, format: str, *args: object) -> None:
        pass

    def address_string(self) -> str:
        return "unix"

    def read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(self.bounded(int(self.headers.get("Content-Length") or 0)))
        body = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            self.bounded(len(body) + size)
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    @staticmethod
    def bounded(length: int) -> int:
        if length > MAX_BODY:
            raise ValueError(f"a body of {length} bytes")
        return length

    def serve(self) -> None:
        url = urllib.parse.urlsplit(self.path)
        path = re.sub(r"^/v1\.\d+", "", url.path)
        try:
            answer = self.engine.answer(Call(self.command, path, urllib.parse.parse_qs(url.query), self.read_body()))
        except Exception as error:  # whatever it is, the suite's log is to have it
            self.close_connection = True
            answer = Answer(500, {"message": f"{self.command} {path}: {error!r}"})
        content = answer.content()
        self.send_response(answer.status)
        self.send_header("Api-Version", API_VERSION)
        self.send_header("Content-Type", answer.kind)
        if answer.status != 204:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if content and answer.status != 204 and self.command != "HEAD":
            self.wfile.write(content)

    do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = serve


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True

    def get_request(self) -> tuple[socket.socket, tuple[str, int]]:
        connection, _ = super().get_request()
        return connection, ("unix", 0)


def main() -> None:
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    at, state, entrypoint = (Path(argument).absolute() for argument in sys.argv[1:])
    at.unlink(missing_ok=True)
    state.mkdir(parents=True, exist_ok=True)
    engine = Handler.engine = Engine(state, entrypoint)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
    try:
        Server(str(at), Handler).serve_forever()
    finally:
        engine.close()


if __name__ == "__main__":
    main()
