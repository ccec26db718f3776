"""Somebody with an account on a homeserver. All that a user does goes through the client API, the same everywhere."""

import itertools
import json
import os
from collections import defaultdict
from urllib.error import HTTPError
from urllib.parse import quote, urlencode
from urllib.request import Request, urlopen

transactions = itertools.count()


class Refused(Exception):
    """A server's no."""

    def __init__(self, status, errcode, what):
        super().__init__(f"{status} {errcode} to {what}")
        self.status, self.errcode = status, errcode


def path(*parts, **query):
    """Parts of a path and a query, encoded."""
    together = "/".join(quote(part, safe="") for part in parts)
    return f"{together}?{urlencode(query, doseq=True)}" if query else together


class User:
    def __init__(self, home, name):
        self.home, self.token = home, None
        account = {"username": name, "password": os.urandom(12).hex(), "auth": {"type": "m.login.dummy"}}
        registered = self.ask("POST", "register", account)
        self.id, self.token = registered["user_id"], registered["access_token"]

    def ask(self, method, where, body=None, api="v3"):
        """A request that must succeed; raises `Refused`, or an `OSError` where nobody answers."""
        request = Request(f"{self.home.url}/_matrix/client/{api}/{where}", method=method)
        request.add_header("content-type", "application/json")
        if self.token:
            request.add_header("authorization", f"Bearer {self.token}")
        data = None if body is None else json.dumps(body).encode()
        try:
            with urlopen(request, data, timeout=60) as answer:
                return json.load(answer)
        except HTTPError as refused:
            try:
                errcode = json.load(refused).get("errcode")
            except ValueError:
                errcode = None
            raise Refused(refused.code, errcode, f"{method} {where}") from None

    # --- rooms, and being in them

    def create(self, version, state=(), **more):
        """A new room, public if nothing else is said, with `state` as (type, content)."""
        state = [{"type": kind, "state_key": "", "content": content} for kind, content in state]
        body = {"preset": "public_chat", "room_version": version, "initial_state": state, **more}
        return self.ask("POST", "createRoom", body)["room_id"]

    def join(self, room, *via):
        servers = [getattr(server, "name", server) for server in via]
        via = {"via": servers, "server_name": servers} if servers else {}
        return self.ask("POST", path("join", room, **via), {})

    def knock(self, room, via, reason):
        self.ask("POST", path("knock", room, via=via.name, server_name=via.name), {"reason": reason})

    def leave(self, room):
        self.ask("POST", path("rooms", room, "leave"), {})

    def invite(self, user, room):
        self._to(user, "invite", room)

    def kick(self, user, room):
        self._to(user, "kick", room)

    def ban(self, user, room):
        self._to(user, "ban", room)

    def unban(self, user, room):
        self._to(user, "unban", room)

    def _to(self, user, deed, room):
        self.ask("POST", path("rooms", room, deed), {"user_id": user.id})

    # --- what is said

    def say(self, room, text, **content):
        return self.send(room, f"t{next(transactions)}", text, **content)

    def send(self, room, transaction, text, **content):
        where = path("rooms", room, "send", "m.room.message", transaction)
        return self.ask("PUT", where, {"msgtype": "m.text", "body": text, **content})["event_id"]

    def redact(self, room, event):
        self.ask("PUT", path("rooms", room, "redact", event, f"t{next(transactions)}"), {})

    def messages(self, room, limit=100):
        """All messages of the room, the latest first, a page of `limit` at a time."""
        page = {"end": None}
        while "end" in page:
            since = {"from": page["end"]} if page["end"] else {}
            page = self.ask("GET", path("rooms", room, "messages", dir="b", limit=limit, **since))
            yield from (event for event in page["chunk"] if event["type"] == "m.room.message")

    def hears(self, room, limit=100):
        """What was said in the room, the latest first; `None` stands for what was redacted."""
        return [event["content"].get("body") for event in self.messages(room, limit)]

    # --- state

    def set(self, room, kind, content, key=""):
        return self.ask("PUT", path("rooms", room, "state", kind, key), content)["event_id"]

    def get(self, room, kind, key=""):
        return self.ask("GET", path("rooms", room, "state", kind, key))

    def state(self, room):
        events = self.ask("GET", path("rooms", room, "state"))
        return {(event["type"], event["state_key"]): event["event_id"] for event in events}

    def members(self, room):
        """Whoever is joined: user id to what they show of themselves there."""
        return self.ask("GET", path("rooms", room, "joined_members"))["joined"]

    def membership(self, room, user):
        return self.get(room, "m.room.member", user.id)["membership"]


class Ear:
    """What somebody hears by /sync from when this was made. `listen` asks once more, the rest is what came of it."""

    FILTER = json.dumps({"room": {"timeline": {"limit": 10}}})

    def __init__(self, user):
        self.user, self.since = user, None
        self.rooms = {}  # to the section a room was last in: join, invite, knock, leave
        self.shown = defaultdict(dict)  # a room's state as an invite or a knock showed it: type to content
        self.typing = defaultdict(set)
        self.receipts = {}  # (room, user, kind, thread) to event
        self.presence = {}
        self.listen()

    def listen(self):
        since = {"since": self.since} if self.since else {}
        asked = path("sync", timeout=0, set_presence="offline", filter=self.FILTER, **since)
        answer = self.user.ask("GET", asked)
        self.since = answer["next_batch"]
        for event in answer.get("presence", {}).get("events", []):
            self.presence[event["sender"]] = event["content"]
        # Who left and was invited since may find the room in both sections: the invite is the later.
        for section in ("leave", "join", "knock", "invite"):
            for room, part in answer.get("rooms", {}).get(section, {}).items():
                self.rooms[room] = section
                for event in part.get(f"{section}_state", {}).get("events", []):
                    self.shown[room][event["type"]] = event["content"]
                for event in part.get("ephemeral", {}).get("events", []):
                    self._ephemeral(room, event)
        return self

    def _ephemeral(self, room, event):
        if event["type"] == "m.typing":
            self.typing[room] = set(event["content"]["user_ids"])
        if event["type"] == "m.receipt":
            for target, kinds in event["content"].items():
                for kind, users in kinds.items():
                    for user, receipt in users.items():
                        self.receipts[room, user, kind, receipt.get("thread_id")] = target
