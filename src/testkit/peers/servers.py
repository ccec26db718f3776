"""Homeservers as processes: Comity as it was built, Synapse from PyPI. Each has a loopback address of its own, plain
HTTP for its users there and TLS for other servers, who reach it through its gate and nowhere else."""

import base64
import itertools
import json
import os
import shutil
import subprocess
import time
from urllib.request import urlopen

from .users import User

CLIENTS, SERVERS, BEHIND_THE_GATE = 8008, 8448, 8449
START = 120
counter = itertools.count(1)


def addresses():
    """Loopback addresses which another run on this machine doesn't take at the same time."""
    pid = os.getpid()
    return (f"127.{16 + pid % 200}.{pid // 200 % 256}.{host}" for host in itertools.count(1))


class Server:
    """What both kinds have: an address, a folder, a process that is there or isn't."""

    # What a kind of server doesn't do, so that nothing is asked of it.
    lacks = frozenset()

    def __init__(self, label, address, scratch, authority, gates):
        self.label, self.address = label, address
        self.url = f"http://{address}:{CLIENTS}"
        self.name = f"{address}:{SERVERS}"
        self.folder = scratch / label.replace(" ", "-")
        self.folder.mkdir()
        self.log = self.folder / "log"
        self.authority = authority.certificate
        self.certificate, self.key = authority.certify(address)
        self.gate = gates.open(address, SERVERS, BEHIND_THE_GATE)
        self.process = None

    def __str__(self):
        return self.label

    def start(self):
        """Begins to start; `awake` waits for it."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command(), env=self.environment(), stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def awake(self):
        """Waits until the server answers; whoever doesn't come up ends the run."""
        until = time.monotonic() + START
        while time.monotonic() < until and self.process.poll() is None:
            try:
                with urlopen(f"{self.url}/_matrix/client/versions", timeout=5):
                    return self
            except OSError:
                time.sleep(0.05)
        raise SystemExit(f"{self} does not answer:\n{self.last_words()}")

    def kill(self):
        """SIGKILL; returns when the process is gone."""
        if self.process:
            self.process.kill()
            self.process.wait()

    def last_words(self):
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-20:]) if self.log.exists() else ""

    def user(self):
        """Somebody new."""
        return User(self, f"user{next(counter)}")

    def command(self):
        raise NotImplementedError

    def environment(self):
        return dict(os.environ)


class Comity(Server):
    def __init__(self, binary, *place):
        super().__init__(*place)
        self.binary = binary
        self.data, self.copied = self.folder / "data", self.folder / "copied"

    def command(self):
        return [self.binary, "serve"]

    def environment(self):
        settings = {
            "SERVER_NAME": self.name,
            "PUBLIC_BASEURL": self.url,
            "DATA_DIR": self.data,
            "LISTEN__CLIENT": f"{self.address}:{CLIENTS}",
            "LISTEN__FEDERATION": f"{self.address}:{BEHIND_THE_GATE}",
            "LISTEN__TLS_CERT": self.certificate,
            "LISTEN__TLS_KEY": self.key,
            "OUTBOUND__EXTRA_CA_FILES": self.authority,
            "OUTBOUND__ALLOW_PRIVATE_ADDRESSES": "true",
            "REGISTRATION__OPEN": "true",
            "LIMITS__ENABLED": "false",
            "STORAGE__LANES": "4",
        }
        return super().environment() | {f"COMITY_{key}": str(value) for key, value in settings.items()}

    def copy(self):
        """Keeps the data of a server that isn't running as they are now, in the place of the copy before."""
        shutil.rmtree(self.copied, ignore_errors=True)
        shutil.copytree(self.data, self.copied, ignore=shutil.ignore_patterns("*.sock"))

    def check_copy(self):
        """`comity check` on that copy: what it found, nothing if all is well."""
        environment = self.environment() | {"COMITY_DATA_DIR": str(self.copied)}
        found = subprocess.run([self.binary, "check"], env=environment, capture_output=True, text=True)
        return "" if found.returncode == 0 else found.stdout + found.stderr


class Synapse(Server):
    # As its source says: a knock that is taken back stays on its own server (`remote_rescind_knock`); of the leave events
    # about somebody whose server isn't in the room, only those that end an invite are sent, and heard; /context misses
    # the event right before one that was fetched, whose place in the stream is the later (`get_events_around`); the
    # signatures of what devices upload are left for others to check (`upload_keys_for_user`).
    lacks = frozenset(
        {"taking knocks back", "telling of declined knocks", "the context of what was fetched", "verifying keys"}
    )

    def __init__(self, environment, *place):
        super().__init__(*place)
        self.python = environment / "bin" / "python"
        self.configuration = self.folder / "homeserver.yaml"
        signing_key, logging = self.folder / "signing.key", self.folder / "logging.yaml"
        seed = base64.b64encode(os.urandom(32)).decode().rstrip("=")
        signing_key.write_text(f"ed25519 peers {seed}\n")
        # Both are YAML, of which JSON is a part.
        logging.write_text(
            json.dumps(
                {
                    "version": 1,
                    "handlers": {"console": {"class": "logging.StreamHandler"}},
                    "root": {"level": "WARNING", "handlers": ["console"]},
                }
            )
        )
        listener = {"bind_addresses": [self.address], "type": "http"}
        often = {"per_second": 10000, "burst_count": 10000}
        settings = {
            "server_name": self.name,
            "report_stats": False,
            "trusted_key_servers": [],
            "enable_registration": True,
            "enable_registration_without_verification": True,
            "bcrypt_rounds": 4,
            "signing_key_path": str(signing_key),
            "media_store_path": str(self.folder / "media"),
            "pid_file": str(self.folder / "unused"),
            "log_config": str(logging),
            "tls_certificate_path": str(self.certificate),
            "tls_private_key_path": str(self.key),
            "federation_custom_ca_list": [str(self.authority)],
            "ip_range_blacklist": [],
            "listeners": [
                listener | {"port": BEHIND_THE_GATE, "tls": True, "resources": [{"names": ["federation"]}]},
                listener | {"port": CLIENTS, "resources": [{"names": ["client"]}]},
            ],
            "database": {"name": "sqlite3", "args": {"database": str(self.folder / "synapse.db")}},
            # A server that was away is tried again after a second, not after ten minutes.
            "federation": {
                "destination_min_retry_interval": "1s",
                "destination_max_retry_interval": "4s",
                "max_long_retry_delay": "1s",
                "max_short_retry_delay": "1s",
                "max_long_retries": 1,
                "max_short_retries": 1,
            },
            "caches": {"sync_response_cache_duration": "0s"},
            "allow_public_rooms_over_federation": True,
            "experimental_features": {"msc3814_enabled": True},
            "room_list_publication_rules": [{"action": "allow"}],
            "rc_message": often,
            "rc_registration": often,
            "rc_login": {"address": often, "account": often, "failed_attempts": often},
            "rc_room_creation": often,
            "rc_joins": {"local": often, "remote": often},
            "rc_joins_per_room": often,
            "rc_invites": {"per_room": often, "per_user": often, "per_issuer": often},
            "rc_presence": {"per_user": often},
            "rc_profile": often,
        }
        self.configuration.write_text(json.dumps(settings))

    def command(self):
        return [self.python, "-m", "synapse.app.homeserver", "-c", self.configuration]
