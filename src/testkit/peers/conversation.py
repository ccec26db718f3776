"""The round trip: somebody comes, talks, leaves, is asked back, is sent away, is banned."""

from .checks import refused, soon
from .users import Ear, path


def visits(check, version, host, guest):
    """A room of `host`'s server, joined by `guest` through it."""
    ear = Ear(guest)
    room = host.create(version)
    host.say(room, "before")
    guest.join(room, host.home)
    check("joins a room of the other", soon(lambda: guest.id in host.members(room)))
    check("reads what was said before", soon(lambda: "before" in guest.hears(room)))

    said = guest.say(room, "of the guest")
    host.say(room, "of the host")
    check("is heard", soon(lambda: "of the guest" in host.hears(room)))
    check("hears", soon(lambda: "of the host" in guest.hears(room)))
    guest.redact(room, said)
    check("redacts there too", soon(lambda: "of the guest" not in host.hears(room)))

    host.set(room, "m.room.topic", {"topic": "comity"})
    check("has the same state", soon(lambda: host.state(room) == guest.state(room)))

    guest.leave(room)
    check("leaves", soon(lambda: guest.id not in host.members(room)))
    host.invite(guest, room)
    check("is invited", soon(lambda: ear.listen().rooms.get(room) == "invite"))

    def is_back():
        return guest.id in host.members(room) and ear.listen().rooms.get(room) == "join"

    guest.join(room, host.home)
    check("comes back", soon(is_back))
    host.kick(guest, room)
    check("is sent away", soon(lambda: ear.listen().rooms.get(room) == "leave"))

    guest.join(room, host.home)
    check("comes back from there too", soon(is_back))
    host.ban(guest, room)
    check("is banned", soon(lambda: ear.listen().rooms.get(room) == "leave"))
    check("can't come back", refused(lambda: guest.join(room, host.home), 403))
    host.unban(guest, room)
    guest.join(room, host.home)
    check("can, once the ban is lifted", soon(lambda: guest.id in host.members(room)))


def history(check, version, host, guest):
    """What was said before somebody of another server came, who may read it, and how it is found."""
    room = host.create(version)
    said = {f"{number}": host.say(room, f"{number}") for number in range(25)}
    host.redact(room, said["7"])
    check("the redaction is done", soon(lambda: None in host.hears(room)))
    guest.join(room, host.home)
    when = host.ask("GET", path("rooms", room, "event", said["3"]))["origin_server_ts"]

    def found():
        return guest.ask("GET", path("rooms", room, "timestamp_to_event", ts=when, dir="f"), api="v1")["event_id"]

    check("finds by its time what its server hasn't got", soon(lambda: found() == said["3"]))
    wanted = [None if number == 7 else f"{number}" for number in reversed(range(25))]
    check("reads everything, page by page, in order", soon(lambda: guest.hears(room, limit=7) == wanted))

    def around():
        context = guest.ask("GET", path("rooms", room, "context", said["12"], limit=4))
        return [event["content"]["body"] for event in context["events_before"] + context["events_after"]]

    if "the context of what was fetched" not in guest.home.lacks:
        check("reads around an event of then", soon(lambda: sorted(around()) == ["10", "11", "13", "14"]))

    host.set(room, "m.room.history_visibility", {"history_visibility": "joined"})
    host.say(room, "among us")
    check("hears what members hear", soon(lambda: "among us" in guest.hears(room)))
    newcomer = guest.home.user()
    newcomer.join(room, host.home)
    check("a newcomer comes", soon(lambda: newcomer.id in host.members(room)))
    host.say(room, "welcome")
    check("a newcomer hears", soon(lambda: "welcome" in newcomer.hears(room)))
    check("a newcomer doesn't read what was among members", "among us" not in newcomer.hears(room))
