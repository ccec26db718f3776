"""What passes between people who are there, and isn't kept: typing, receipts, presence."""

from .checks import soon
from .users import Ear, path


def signs(check, version, host, guest):
    room = host.create(version)
    guest.join(room, host.home)
    check("is in", soon(lambda: guest.id in host.members(room)))
    for who, other, whose in ((host, guest, "the host's"), (guest, host, "the guest's")):
        ear = Ear(other)
        typing(lambda what, holds: check(f"{whose} typing {what}", holds), room, who, ear)
        receipts(lambda what, holds: check(f"{whose} receipt {what}", holds), room, who, ear)
        presence(lambda what, holds: check(f"{whose} presence {what}", holds), who, ear)


def typing(check, room, who, ear):
    notice = path("rooms", room, "typing", who.id)
    who.ask("PUT", notice, {"typing": True, "timeout": 30000})
    check("begins", soon(lambda: who.id in ear.listen().typing[room]))
    who.ask("PUT", notice, {"typing": False})
    check("ends", soon(lambda: who.id not in ear.listen().typing[room]))


def receipts(check, room, who, ear):
    """`who` reads what `ear`'s user said; what is read in private, and before anything else, stays private."""
    root, last = ear.user.say(room, "root"), ear.user.say(room, "last")
    relation = {"rel_type": "m.thread", "event_id": root}
    threaded = ear.user.say(room, "in the thread", **{"m.relates_to": relation})
    check("finds its event", soon(lambda: who.ask("GET", path("rooms", room, "event", threaded))))

    def read(kind, event, thread=None):
        body = {"thread_id": thread} if thread else {}
        who.ask("POST", path("rooms", room, "receipt", kind, event), body)

    def heard(kind, thread=None):
        return ear.listen().receipts.get((room, who.id, kind, thread))

    read("m.read.private", root, "main")
    read("m.read", threaded, root)
    check("in a thread is seen", soon(lambda: heard("m.read", root) == threaded))
    read("m.read", root, "main")
    check("outside of threads is seen", soon(lambda: heard("m.read", "main") == root))
    read("m.read", last)
    check("for the whole room is seen", soon(lambda: heard("m.read") == last))
    told = {kind for _, whose, kind, _ in ear.receipts if whose == who.id}
    check("in private isn't", told == {"m.read"})


def presence(check, who, ear):
    def shows(state, text):
        seen = ear.listen().presence.get(who.id, {})
        return (seen.get("presence"), seen.get("status_msg")) == (state, text)

    status = path("presence", who.id, "status")
    for state, text in (("online", "at the desk"), ("unavailable", "at lunch")):
        who.ask("PUT", status, {"presence": state, "status_msg": text})
        check(f"{state} is seen", soon(lambda: shows(state, text)))
    asked = ear.user.ask("GET", status)
    check("is told by asking", (asked["presence"], asked.get("status_msg")) == ("unavailable", "at lunch"))
