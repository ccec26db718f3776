#!/usr/bin/env python3
"""Tests of the tools around Complement: the engine with a server of ten lines behind it, and what `record` pins."""

from __future__ import annotations

import http.client
import importlib.machinery
import importlib.util
import json
import shutil
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
import unittest
from contextlib import closing
from io import BytesIO
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
NAMESPACES = subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode == 0

# Answers every request with the name it was started under and how often it was started.
ENTRYPOINT = f"""#!{sys.executable}
import http.server, os, pathlib, socket
starts = pathlib.Path(os.environ["DATA_DIR"], "starts")
starts.write_text(str(int(starts.read_text()) + 1) if starts.exists() else "1")
body = f'{{os.environ["SERVER_NAME"]}} {{starts.read_text()}} {{socket.gethostbyname("hs2")}}'.encode()
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
http.server.HTTPServer((os.environ["BIND_IP"], 8008), Handler).serve_forever()
"""


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("engine")
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(str(self.path))


def eventually(attempt: Any) -> Any:
    """What `attempt` returns once it no longer raises, within ten seconds."""
    until = time.monotonic() + 10
    while True:
        try:
            return attempt()
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.05)


@unittest.skipUnless(NAMESPACES, "mount namespaces are not allowed here")
class EngineTest(unittest.TestCase):
    def setUp(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.folder)
        entrypoint = self.folder / "entrypoint"
        entrypoint.write_text(ENTRYPOINT)
        entrypoint.chmod(0o755)
        self.at = self.folder / "socket"
        engine = subprocess.Popen([sys.executable, HERE / "engine.py", self.at, self.folder / "state", entrypoint])
        self.addCleanup(engine.wait)
        self.addCleanup(engine.terminate)
        eventually(lambda: self.call("GET", "/_ping"))

    def call(self, method: str, path: str, body: Any = None) -> tuple[int, bytes]:
        connection = UnixConnection(self.at)
        content = body if isinstance(body, bytes) or body is None else json.dumps(body)
        with closing(connection):
            connection.request(method, "/v1.47" + path, content)
            response = connection.getresponse()
            return response.status, response.read()

    def create(self, network: str, image: str = "comity", name: str = "hs1") -> str:
        self.call("POST", "/networks/create", {"Name": network, "Labels": {"of": network}})
        status, body = self.call(
            "POST",
            "/containers/create?name=c",
            {
                "Image": image,
                "Env": [f"SERVER_NAME={name}"],
                "Labels": {"of": network},
                "NetworkingConfig": {"EndpointsConfig": {network: {"Aliases": [name]}}},
            },
        )
        self.assertEqual(status, 201)
        return str(json.loads(body)["Id"])

    def start(self, container: str) -> int:
        self.assertEqual(self.call("POST", f"/containers/{container}/start")[0], 204)
        ports = json.loads(self.call("GET", f"/containers/{container}/json")[1])["NetworkSettings"]["Ports"]
        return int(ports["8008/tcp"][0]["HostPort"])

    def ask(self, port: int) -> str:
        def attempt() -> str:
            with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=5)) as connection:
                try:
                    connection.request("GET", "/")
                    return connection.getresponse().read().decode()
                except http.client.HTTPException as error:
                    raise OSError from error

        return str(eventually(attempt))

    def test_a_container_keeps_its_port_and_data_over_a_restart(self) -> None:
        container = self.create("net")
        port = self.start(container)
        self.assertTrue(self.ask(port).startswith("hs1 1 127."))
        self.assertEqual(self.call("POST", f"/containers/{container}/stop?t=5")[0], 204)
        self.assertEqual(self.start(container), port)
        self.assertTrue(self.ask(port).startswith("hs1 2 127."))

    def test_an_image_made_from_a_container_has_its_data_and_labels(self) -> None:
        container = self.create("net")
        self.ask(self.start(container))
        changes = "changes=LABEL+%22token%22%3D%22secret%22"
        status, body = self.call("POST", f"/commit?container={container}&repo=r&tag=t&{changes}", {})
        self.assertEqual(status, 201)
        self.call("DELETE", f"/containers/{container}?force=1")
        found = json.loads(self.call("GET", '/images/json?filters={"label":{"of=net":true}}')[1])
        self.assertEqual(found[0]["Labels"], {"of": "net", "token": "secret"})
        again = self.create("net", image=json.loads(body)["Id"])
        self.assertTrue(self.ask(self.start(again)).startswith("hs1 2 127."))

    def test_a_removed_network_keeps_its_addresses_while_a_container_has_one(self) -> None:
        first = self.ask(self.start(self.create("one", name="hs1")))
        self.call("DELETE", "/networks/one")
        second = self.ask(self.start(self.create("two", name="hs3")))
        self.assertNotEqual(first.split()[2].rsplit(".", 2)[0], second.split()[2].rsplit(".", 2)[0])

    def test_files_are_put_into_the_container_and_nowhere_else(self) -> None:
        container = self.create("net")

        def put(name: str) -> int:
            archive = BytesIO()
            with tarfile.open(fileobj=archive, mode="w") as tar:
                entry = tarfile.TarInfo(name)
                entry.size = 2
                tar.addfile(entry, BytesIO(b"hi"))
            return self.call("PUT", f"/containers/{container}/archive?path=/", archive.getvalue())[0]

        self.assertEqual(put("/complement/ca/ca.crt"), 200)
        placed = list((self.folder / "state").glob("*/complement/ca/ca.crt"))
        self.assertEqual([path.read_bytes() for path in placed], [b"hi"])
        self.assertEqual(put("/../../escaped"), 500)
        self.assertFalse((self.folder / "escaped").exists())

    def test_what_it_does_not_know_is_refused(self) -> None:
        self.assertEqual(self.call("POST", "/volumes/create", {})[0], 404)
        self.assertEqual(self.call("GET", "/containers/none/json")[0], 404)


class RecordTest(unittest.TestCase):
    def setUp(self) -> None:
        loader = importlib.machinery.SourceFileLoader("record", str(HERE / "record"))
        spec = importlib.util.spec_from_loader("record", loader)
        assert spec
        self.record = importlib.util.module_from_spec(spec)
        dont_write, sys.dont_write_bytecode = sys.dont_write_bytecode, True
        loader.exec_module(self.record)
        sys.dont_write_bytecode = dont_write
        self.folder = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.folder)

    def run_of(self, *rows: tuple[str, str, str]) -> Path:
        path = self.folder / "run.json"
        lines = [
            json.dumps({"Package": f"x/tests/{package}", "Test": test, "Action": action})
            for package, test, action in rows
        ]
        path.write_text("\n".join(["panic: not a row", *lines, '{"Action":"output"}']))
        return path

    def pin(self, run: Path, pinned: Path) -> int:
        command = [sys.executable, str(HERE / "record"), str(run), str(pinned)]
        return subprocess.run(command, capture_output=True, check=False).returncode

    def test_the_worse_of_two_packages_counts_and_the_unfinished_failed(self) -> None:
        run = self.run_of(
            ("a", "T", "pass"), ("b", "T", "fail"), ("a", "U", "run"), ("a", "V", "skip"), ("b", "V", "pass")
        )
        self.assertEqual(self.record.read_run(run)[0], {"T": "fail", "U": "fail", "V": "pass"})

    def test_nothing_that_passed_is_lost(self) -> None:
        pinned = self.folder / "results.jsonl"
        self.assertEqual(self.pin(self.run_of(("a", "B", "pass"), ("a", "A/x", "fail")), pinned), 0)
        rows = '{"Test": "A/x", "Action": "fail"}\n{"Test": "B", "Action": "pass"}\n'
        self.assertEqual(pinned.read_text(), rows)
        self.assertEqual(self.pin(self.run_of(("a", "B", "fail"), ("a", "C", "pass")), pinned), 1)
        self.assertEqual(pinned.read_text(), rows)
        self.assertEqual(self.pin(self.run_of(("a", "C", "pass")), pinned), 0)
        self.assertEqual(pinned.read_text(), rows + '{"Test": "C", "Action": "pass"}\n')

    def test_a_name_set_aside_stands_for_its_subtests(self) -> None:
        aside = self.record.read_set_aside(HERE / "set-aside.tsv")
        self.assertTrue(self.record.is_set_aside("TestSearch/parallel/x", aside))
        self.assertFalse(self.record.is_set_aside("TestSearchMore", aside))


if __name__ == "__main__":
    unittest.main()
