"""Two homeservers share rooms, each with a user of its own, through nothing but their client APIs.

    conversation.py OURS_URL OURS_NAME THEIRS_URL THEIRS_NAME RESTART

RESTART is a command that takes `stop` or `start` and does that to our server. Each check is a line; the exit code
says whether all of them held. What a check waits for is asked again until it is there, 30 seconds at most.
"""

import itertools
import json
import os
import shlex
import subprocess
import sys
import time
from urllib.error import HTTPError, URLError
from urllib.parse import quote
from urllib.request import Request, urlopen

VERSIONS = ["6", "10", "11", "12"]
PATIENCE = 30
numbers = itertools.count()


class User:
    """Somebody with an account on one of the servers."""

    def __init__(self, url, server, name):
        self.url, self.server, self.token = url, server, None
        account = {"username": name, "password": os.urandom(12).hex(), "auth": {"type": "m.login.dummy"}}
        registered = self.ask("POST", "register", account)
        self.id, self.token = registered["user_id"], registered["access_token"]

    def ask(self, method, path, body=None):
        """A request that must succeed; a refusal raises HTTPError."""
        request = Request(f"{self.url}/_matrix/client/v3/{path}", method=method)
        request.add_header("content-type", "application/json")
        if self.token:
            request.add_header("authorization", f"Bearer {self.token}")
        data = None if body is None else json.dumps(body).encode()
        with urlopen(request, data, timeout=60) as answer:
            return json.load(answer)

    def create(self, version, **more):
        body = {"preset": "public_chat", "room_version": version, **more}
        return self.ask("POST", "createRoom", body)["room_id"]

    def join(self, room, via):
        return self.ask("POST", f"join/{quote(room)}?via={via}&server_name={via}", {})

    def say(self, room, text):
        path = f"rooms/{quote(room)}/send/m.room.message/t{next(numbers)}"
        return self.ask("PUT", path, {"msgtype": "m.text", "body": text})["event_id"]

    def redact(self, room, event):
        self.ask("PUT", f"rooms/{quote(room)}/redact/{quote(event)}/t{next(numbers)}", {})

    def hears(self, room):
        """What was said in the room, the latest first, as far as 100 events reach back."""
        page = self.ask("GET", f"rooms/{quote(room)}/messages?dir=b&limit=100")
        return [event["content"].get("body") for event in page["chunk"] if event["type"] == "m.room.message"]

    def state(self, room):
        events = self.ask("GET", f"rooms/{quote(room)}/state")
        return {(event["type"], event["state_key"]): event["event_id"] for event in events}

    def members(self, room):
        return set(self.ask("GET", f"rooms/{quote(room)}/joined_members")["joined"])

    def is_invited(self, room):
        # A filter of its own each time: servers may keep the answer to what was asked before.
        limit = {"room": {"timeline": {"limit": next(numbers) + 1}}}
        sync = self.ask("GET", f"sync?timeout=0&filter={quote(json.dumps(limit))}")
        return room in sync.get("rooms", {}).get("invite", {})


def soon(holds):
    """Whether something comes to hold within PATIENCE; what can't be asked yet doesn't."""
    until = time.monotonic() + PATIENCE
    while True:
        try:
            if holds():
                return True
        except URLError:  # HTTPError is one
            pass
        if time.monotonic() > until:
            return False
        time.sleep(0.1)


def shared(check, version, host, guest):
    """A room of `host`'s server, joined by `guest` through it."""
    room = host.create(version)
    host.say(room, "before")
    guest.join(room, host.server)
    check("joins a room of the other", soon(lambda: guest.id in host.members(room)))
    check("reads what was said before", soon(lambda: "before" in guest.hears(room)))

    said = guest.say(room, "of the guest")
    host.say(room, "of the host")
    check("is heard", soon(lambda: "of the guest" in host.hears(room)))
    check("hears", soon(lambda: "of the host" in guest.hears(room)))
    guest.redact(room, said)
    check("redacts there too", soon(lambda: "of the guest" not in host.hears(room)))

    host.ask("PUT", f"rooms/{quote(room)}/state/m.room.topic", {"topic": "comity"})
    check("has the same state", soon(lambda: host.state(room) == guest.state(room)))

    guest.ask("POST", f"rooms/{quote(room)}/leave", {})
    check("leaves", soon(lambda: guest.id not in host.members(room)))
    host.ask("POST", f"rooms/{quote(room)}/invite", {"user_id": guest.id})
    check("is invited", soon(lambda: guest.is_invited(room)))
    guest.join(room, host.server)
    check("comes back", soon(lambda: guest.id in host.members(room)))
    host.ask("POST", f"rooms/{quote(room)}/kick", {"user_id": guest.id})
    check("is sent away", soon(lambda: guest.id not in guest_knows(guest, room)))


def guest_knows(guest, room):
    """The members as somebody knows them who may have been sent away; nobody once they may not ask."""
    try:
        return guest.members(room)
    except HTTPError as refused:
        if refused.code == 403:
            return set()
        raise


def away(check, ours, theirs, server):
    """Our server is down while theirs goes on, and hears of it afterwards."""
    room = theirs.create("10")
    ours.join(room, theirs.server)
    ours.say(room, "here")
    check("is heard before", soon(lambda: "here" in theirs.hears(room)))
    server("stop")
    texts = [f"missed {number}" for number in range(5)]
    for text in texts:
        theirs.say(room, text)
    server("start")
    # A server that was away is told when it speaks, or at the latest when its peer tries again.
    check("comes up again", soon(lambda: ours.say(room, "back")))
    check("is heard afterwards", soon(lambda: "back" in theirs.hears(room)))
    theirs.say(room, "welcome")
    check("hears all that was missed", soon(lambda: set(texts) <= set(ours.hears(room))))


def main():
    ours_url, ours_name, theirs_url, theirs_name, restart = sys.argv[1:]
    ours, theirs = User(ours_url, ours_name, "ours"), User(theirs_url, theirs_name, "theirs")
    results = []

    def checks(case):
        def check(what, holds):
            results.append(holds)
            print(f"{'ok  ' if holds else 'FAIL'}  {case}: {what}", flush=True)

        return check

    for version in VERSIONS:
        for host, guest, which in ((theirs, ours, "our user"), (ours, theirs, "their user")):
            shared(checks(f"version {version}, {which}"), version, host, guest)

    def server(what):
        subprocess.run([*shlex.split(restart), what], check=True)

    away(checks("our server away"), ours, theirs, server)
    print(f"{sum(results)} passed, {len(results) - sum(results)} failed")
    sys.exit(not all(results))


if __name__ == "__main__":
    main()
