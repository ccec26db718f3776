"""Three servers that can't reach one another while people go on, and what they make of it when they meet again."""

from .checks import soon

# What a wait of two seconds may have become, and then the time to catch up.
HEALED = 90


class Room:
    """A room of one version with somebody of each server, the creator's first; a fourth will be banned."""

    def __init__(self, version, servers):
        self.version = version
        self.creator, self.second, self.third = self.members = [server.user() for server in servers]
        self.banned = servers[-1].user()
        powerful = {user.id: 50 for user in (self.second, self.third, self.banned)}
        if version != "12":  # there the creator's level has no number
            powerful[self.creator.id] = 100
        # Whoever may bend the rules of the room a little: what they do counts by what they are.
        levels = {"users": powerful, "events": {"m.room.join_rules": 50, "m.room.topic": 50, "m.room.name": 50}}
        self.id = self.creator.create(version, power_level_content_override=levels)
        for user in (self.second, self.third, self.banned):
            user.join(self.id, servers[0])

    def agrees(self):
        first, *others = (user.state(self.id) for user in self.members)
        return all(state == first for state in others)

    def hear(self, texts):
        return all(set(texts) <= set(user.hears(self.id)) for user in self.members)

    def say(self, text):
        """Each says it: these events join what came apart."""
        texts = [f"{text} {user.id}" for user in self.members]
        for user, said in zip(self.members, texts):
            user.say(self.id, said)
        return texts


def apart(results, versions, servers):
    """All at once, for each is alone: a room of each version goes through it, each server creates some."""
    rooms = []
    for number, version in enumerate(versions):
        turn = number % len(servers)
        rooms.append(Room(version, servers[turn:] + servers[:turn]))
    checks = [results.of(f"apart, version {room.version}, created on {room.creator.home}") for room in rooms]
    for check, room in zip(checks, rooms):
        check("all are in, with the same state", soon(room.agrees))

    for server in servers:
        server.gate.shut()
    said = [go_on(room) for room in rooms]
    for server in servers:
        server.gate.open()

    for check, room, texts in zip(checks, rooms, said):
        texts += room.say("together")
        check("what was said is heard everywhere", soon(lambda: room.hear(texts), HEALED))
    for check, room in zip(checks, rooms):
        # Only now has everybody what came apart: what follows joins it.
        texts = room.say("agreed")
        check("what is said then too", soon(lambda: room.hear(texts)))
        check("all have the same state", soon(room.agrees), differences(room))
        for user in room.members:
            check(f"{user.home} keeps the ban", user.membership(room.id, room.banned) == "ban")
            named = ("m.room.name", "") in user.state(room.id)
            check(f"{user.home} has no name by who was banned", not named)
            rule = user.get(room.id, "m.room.join_rules")["join_rule"]
            check(f"{user.home} has no rule by who was demoted", rule == "public", rule)
            levels = user.get(room.id, "m.room.power_levels")["users"]
            check(f"{user.home} has the creator's levels", levels[room.second.id] == 0)


def go_on(room):
    """What people do meanwhile; the creator's deeds are to win. Returns what all should hear in the end."""
    texts = room.say("apart")
    for user in room.members:
        user.set(room.id, "m.room.topic", {"topic": f"by {user.id}"})
    room.creator.ban(room.banned, room.id)
    room.banned.set(room.id, "m.room.name", {"name": "by who is banned"})
    levels = room.creator.get(room.id, "m.room.power_levels")
    levels["users"] |= {room.second.id: 0}
    room.creator.set(room.id, "m.room.power_levels", levels)
    room.second.set(room.id, "m.room.join_rules", {"join_rule": "invite"})
    return texts


def differences(room):
    """For the reader of a failure: which entries differ."""
    states = [user.state(room.id) for user in room.members]
    keys = set().union(*states)
    return sorted(key for key in keys if len({state.get(key) for state in states}) > 1)


def one_way(results, versions, servers):
    """A server that others can't reach, while it reaches them."""
    for number, server in enumerate(servers):
        version, other = versions[number % len(versions)], servers[(number + 1) % len(servers)]
        check = results.of(f"one way, version {version}, {other} can't reach {server}")
        inside, outside = server.user(), other.user()
        room = outside.create(version)
        inside.join(room, other)
        check("is in", soon(lambda: inside.id in outside.members(room)))
        server.gate.shut()
        outside.say(room, "unheard")
        inside.say(room, "from within")
        check("is heard", soon(lambda: "from within" in outside.hears(room)))
        check("doesn't hear", "unheard" not in inside.hears(room))
        server.gate.open()
        outside.say(room, "hello")
        check("hears all of it then", soon(lambda: {"unheard", "hello"} <= set(inside.hears(room)), HEALED))
        check("with the same state", soon(lambda: inside.state(room) == outside.state(room)))
