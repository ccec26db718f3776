"""Two Comity servers share rooms, and one of them is killed (SIGKILL), again and again, while people on both go on.

Writers say things and change state in rooms that both servers are in; commuters join rooms that their server isn't in,
say something, leave, so that there is always a handshake under way. Everybody repeats what wasn't answered, under the
same transaction id. After each kill `comity check` walks a copy of the store: whoever opens a store replays its log, and
that is the restart's to do, whose time is told. At the end both servers have the same state and the same messages in each
room: all that was acknowledged, once, under the id that was given.
"""

import random
import threading
import time
from collections import Counter
from http.client import HTTPException

from .checks import soon
from .users import Refused

# Of each server: writers, the versions of the rooms it makes, commuters.
WRITERS, VERSIONS, COMMUTERS = 2, ["10", "12"], 1
# How long somebody waits between two deeds: the test is about kills, not about load.
PAUSE = 0.02
CONVERGED = 120
KIND = "org.comity.peers"


class Person(threading.Thread):
    """Does one thing after the other until told to stop; what isn't answered is done again."""

    def __init__(self, user, seed):
        super().__init__(daemon=True)
        self.user, self.random = user, random.Random(f"{seed} {user.id}")
        self.stopping = threading.Event()
        self.said = {}  # what was acknowledged: text to (room, event)
        self.wrong = []  # refusals that nobody should have got

    def run(self):
        while not self.stopping.is_set():
            self.deed()
            time.sleep(PAUSE)

    def until_done(self, ask):
        """Its answer, in the end; nobody may be told no, but by a server that is busy coming up."""
        while True:
            try:
                return ask()
            except Refused as no:
                if no.status < 500:
                    self.wrong.append(f"{self.user.id}: {no}")
                    return None
            except (OSError, HTTPException):
                pass
            time.sleep(PAUSE)

    def say(self, room):
        text = f"{self.user.id} {len(self.said)}"
        event = self.until_done(lambda: self.user.send(room, f"deed {len(self.said)}", text))
        if event:
            self.said[text] = room, event


class Writer(Person):
    """Talks in rooms that both servers are in, and changes their state."""

    def __init__(self, user, seed, rooms):
        super().__init__(user, seed)
        self.rooms, self.state = rooms, {}

    def deed(self):
        room = self.random.choice(self.rooms)
        what = self.random.random()
        if what < 0.7:
            self.say(room)
        elif what < 0.9:
            content = {"count": self.state.get(room, {"count": 0})["count"] + 1}
            if self.until_done(lambda: self.user.set(room, KIND, content, self.user.id)):
                self.state[room] = content
        else:
            self.until_done(lambda: self.user.set(room, "m.room.topic", {"topic": str(self.random.random())}))


class Commuter(Person):
    """Goes to and fro between rooms of the other server, old ones and new ones, which a landlord there makes."""

    def __init__(self, user, seed, landlord):
        super().__init__(user, seed)
        self.landlord, self.rooms = landlord, []
        self.joins = 0

    def deed(self):
        if len(self.rooms) < 2 or self.random.random() < 0.1:
            try:
                self.rooms.append(self.landlord.create("12"))
            except (OSError, HTTPException, Refused):
                return  # made or not, nobody is in it
        room = self.random.choice(self.rooms)
        if self.enter(room):
            self.say(room)
            self.until_done(lambda: self.exit(room))

    def enter(self, room):
        """Whether it is in; where the other server is down, or went down, nobody lets it in."""
        try:
            self.user.join(room, self.landlord.home)
            self.joins += 1
            return True
        except (OSError, HTTPException, Refused):
            return False

    def exit(self, room):
        try:
            self.user.leave(room)
        except Refused as no:
            if no.status != 403:  # it had left before it was answered
                raise


def populate(servers, seed):
    """Everybody, and who on each server is to be in which room in the end."""
    speakers = [server.user() for server in servers]
    users = speakers + [server.user() for server in servers for _ in range(WRITERS - 1)]
    shared = {}
    # Everybody may set the topic, so that there is something to disagree about.
    everybody = {"events": {"m.room.topic": 0, KIND: 0}}
    for creator in speakers:
        for version in VERSIONS:
            room = creator.create(version, power_level_content_override=everybody)
            for user in users:
                if user is not creator:
                    user.join(room, creator.home)
            shared[room] = speakers
    people = [Writer(user, seed, list(shared)) for user in users]
    for number, server in enumerate(servers):
        landlord = servers[number - 1].user()
        people += [Commuter(server.user(), seed, landlord) for _ in range(COMMUTERS)]
    return people, shared


def kill(check, servers, kills, seed):
    """Kills as often as that, and looks at what is left."""
    chance = random.Random(seed)
    people, rooms = populate(servers, seed)
    for person in people:
        person.start()
    slowest, findings = 0.0, []
    for number in range(1, kills + 1):
        time.sleep(chance.uniform(0.05, 1.0))
        server = chance.choice(servers)
        server.kill()
        server.copy()
        begun = time.monotonic()
        server.start()
        server.awake()
        slowest = max(slowest, time.monotonic() - begun)
        findings = server.check_copy()
        if findings:
            check(f"after kill {number} the store of {server} is in order", False, findings)
            break
        print(f"kill {number} of {kills}, of {server}: the store is in order", flush=True)
    check("the stores were in order after each kill", not findings)

    for person in people:
        person.stopping.set()
    for person in people:
        person.join()
    for person in people:
        if isinstance(person, Commuter):
            for room in person.rooms:
                soon(lambda: person.enter(room), CONVERGED)
                rooms[room] = [person.landlord, person.user]
    refusals = [no for person in people for no in person.wrong]
    check("nobody was refused anything", not refusals, refusals[:5])

    begun = time.monotonic()
    settle(rooms)
    for room, users in rooms.items():
        same = soon(lambda: len({frozenset(user.state(room).items()) for user in users}) == 1, CONVERGED)
        check(f"both have the same state of {room}", same)
        same = soon(lambda: len({frozenset(heard(user, room)) for user in users}) == 1, CONVERGED)
        check(f"both have the same messages in {room}", same, [len(set(heard(user, room))) for user in users])
    converged = time.monotonic() - begun

    lost, doubled = compare(people, rooms)
    check("nothing acknowledged is lost", not lost, lost[:5])
    check("nothing is there twice", not doubled, doubled[:5])
    for writer in (person for person in people if isinstance(person, Writer)):
        last = [(room, content, user) for room, content in writer.state.items() for user in rooms[room]]
        kept = all(user.get(room, KIND, writer.user.id) == content for room, content, user in last)
        check(f"the last state that {writer.user.id} set is everybody's", kept)
    joins = sum(person.joins for person in people if isinstance(person, Commuter))
    said = sum(len(person.said) for person in people)
    print(
        f"{kills} kills, {said} messages in {len(rooms)} rooms, {joins} joins; the slowest restart took "
        f"{slowest:.1f} s, the rooms were the same {converged:.1f} s after the last"
    )


def settle(rooms):
    """Twice each says something that the other hears, so that there is an event that joins all that came apart."""
    for text in ("settled", "agreed"):
        for room, users in rooms.items():
            for user in users:
                user.say(room, f"{text} {user.id}")
        for room, users in rooms.items():
            wanted = {f"{text} {user.id}" for user in users}
            soon(lambda: all(wanted <= {said for _, said in heard(user, room)} for user in users), CONVERGED)


def heard(user, room):
    """The room's messages, all of them: event and text."""
    return [(event["event_id"], event["content"].get("body")) for event in user.messages(room, 500)]


def compare(people, rooms):
    """What is acknowledged and isn't there under its id; what is there under several, or several times."""
    lost, doubled = [], []
    for room, users in rooms.items():
        said = {(event, text) for person in people for text, (where, event) in person.said.items() if where == room}
        for user in users:
            there = heard(user, room)
            lost += [f"{text} as {event} on {user.home}" for event, text in said - set(there)]
            counts = Counter(text for _, text in there) + Counter(event for event, _ in there)
            doubled += [f"{what} {count} times on {user.home}" for what, count in counts.items() if count > 1]
    return lost, doubled
