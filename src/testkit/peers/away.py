"""A server is killed while the others go on, comes back and has it all."""

from .checks import soon

# More than one transaction holds, and more than one page of what a server asks for.
MISSED = 120
CAUGHT_UP = 90


def away(check, version, gone, other):
    """A room of `other`'s, whose guest's server goes away."""
    host, guest = other.user(), gone.user()
    room = host.create(version)
    host_room = guest.create(version)
    guest.join(room, other)
    host.join(host_room, gone)
    guest.say(room, "here")
    check("is heard before", soon(lambda: "here" in host.hears(room)))
    check("and hears", soon(lambda: host.id in guest.members(host_room)))

    guest.say(room, "last words")
    gone.kill()
    texts = [f"missed {number}" for number in range(MISSED)]
    for text in texts:
        host.say(room, text)
    host.set(room, "m.room.topic", {"topic": "those who are away"})
    host.say(host_room, "knock, knock")
    newcomer = other.user()
    newcomer.join(room)
    gone.start()
    gone.awake()

    # A server that was away is told when it speaks, or at the latest when its peer tries again.
    check("comes up again", soon(lambda: guest.say(room, "back")))
    check("is heard afterwards", soon(lambda: "back" in host.hears(room), CAUGHT_UP))
    check("what it had said before is heard", soon(lambda: "last words" in host.hears(room)))
    host.say(room, "welcome")
    check("hears what is new", soon(lambda: "welcome" in guest.hears(room), CAUGHT_UP))
    check("hears all that was missed, once", soon(lambda: once(guest.hears(room), texts), CAUGHT_UP))
    check("in its own room too", soon(lambda: "knock, knock" in guest.hears(host_room), CAUGHT_UP))
    check("knows who came", soon(lambda: newcomer.id in guest.members(room)))
    check("has the same state", soon(lambda: host.state(room) == guest.state(room)))


def once(heard, texts):
    return sorted(text for text in heard if text in set(texts)) == sorted(texts)
