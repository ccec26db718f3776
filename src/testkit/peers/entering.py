"""How people of another server come into rooms that aren't open to everybody."""

from .checks import refused, soon
from .users import Ear


def by_rule(rule, lobby):
    """State for a room that members of the lobby may join."""
    allow = [{"type": "m.room_membership", "room_id": lobby}]
    return [("m.room.join_rules", {"join_rule": rule, "allow": allow})]


def authoriser(asked, room, user):
    return asked.get(room, "m.room.member", user.id).get("join_authorised_via_users_server")


def restricted(check, version, host, guest):
    """Joins that a member's server has to vouch for."""
    lobby = host.create(version)
    levels = {"invite": 50}
    room = host.create(version, by_rule("restricted", lobby), power_level_content_override=levels)
    check("isn't let in from the street", refused(lambda: guest.join(room, host.home), 403))
    guest.join(lobby, host.home)
    check("comes into the lobby", soon(lambda: guest.id in host.members(lobby)))
    guest.join(room, host.home)
    check("is let in from the lobby", soon(lambda: guest.id in host.members(room)))
    check("by the host's word", authoriser(host, room, guest) == host.id)
    # Now the guest's server is in both rooms, but nobody of it may invite.
    friend, stranger = guest.home.user(), guest.home.user()
    friend.join(lobby, host.home)
    check("a friend comes into the lobby", soon(lambda: friend.id in host.members(lobby)))
    friend.join(room, host.home)
    check("a friend is let in too", soon(lambda: friend.id in host.members(room)))
    check("by somebody who may invite", authoriser(host, room, friend) == host.id)
    check("a stranger still isn't", refused(lambda: stranger.join(room, host.home), 403))
    check("and all agree who is there", soon(lambda: host.state(room) == guest.state(room) == friend.state(room)))


def knocking(check, version, host, guest):
    """Somebody asks to be let in."""
    ear = Ear(guest)
    rule = [("m.room.join_rules", {"join_rule": "knock"}), ("m.room.name", {"name": "a door"})]
    room = host.create(version, rule)
    check("can't just come in", refused(lambda: guest.join(room, host.home), 403))

    def is_at_the_door():
        return host.membership(room, guest) == "knock"

    guest.knock(room, host.home, "it rains")
    check("is heard", soon(is_at_the_door))
    check("with the reason", host.get(room, "m.room.member", guest.id).get("reason") == "it rains")
    check("knows that it waits", soon(lambda: ear.listen().rooms.get(room) == "knock"))
    check("knows at which door", ear.shown[room].get("m.room.name") == {"name": "a door"})
    if "taking knocks back" not in guest.home.lacks:
        guest.leave(room)
        check("goes away", soon(lambda: host.membership(room, guest) == "leave"))
        check("waits no more", soon(lambda: ear.listen().rooms.get(room) == "leave"))
        guest.knock(room, host.home, "it pours")
        check("is heard again", soon(is_at_the_door))

    host.kick(guest, room)
    check("is declined", host.membership(room, guest) == "leave")
    if not {"telling of declined knocks"} & (host.home.lacks | guest.home.lacks):
        check("knows that it is declined", soon(lambda: ear.listen().rooms.get(room) == "leave"))
    guest.knock(room, host.home, "please")
    check("asks again", soon(is_at_the_door))
    host.invite(guest, room)
    check("is asked in", soon(lambda: ear.listen().rooms.get(room) == "invite"))
    guest.join(room, host.home)
    check("is in", soon(lambda: guest.id in host.members(room)))
    check("and all agree", soon(lambda: host.state(room) == guest.state(room)))


def knock_restricted(check, version, host, guest):
    """Whoever is of the lobby comes in, everybody else asks."""
    lobby = host.create(version)
    room = host.create(version, by_rule("knock_restricted", lobby))
    check("isn't let in from the street", refused(lambda: guest.join(room, host.home), 403))
    guest.knock(room, host.home, "please")
    check("may ask", soon(lambda: host.membership(room, guest) == "knock"))
    friend = guest.home.user()
    friend.join(lobby, host.home)
    friend.join(room, host.home)
    check("a friend from the lobby is let in", soon(lambda: friend.id in host.members(room)))


def no_knocking(check, version, host, guest):
    """A room whose version knows no knocking."""
    room = host.create(version, [("m.room.join_rules", {"join_rule": "invite"})])
    check("can't ask", refused(lambda: guest.knock(room, host.home, "please"), 400, 403))
    check("nor come in", refused(lambda: guest.join(room, host.home), 403))


def invites(check, version, host, guest):
    """Invites that are declined, taken back, accepted."""
    ear = Ear(guest)
    room = host.create(version, [("m.room.name", {"name": "a party"})], preset="private_chat")

    def is_asked():
        return ear.listen().rooms.get(room) == "invite"

    host.invite(guest, room)
    check("is asked", soon(is_asked))
    check("knows whereto", ear.shown[room].get("m.room.name") == {"name": "a party"})
    check("knows by whom", ear.shown[room].get("m.room.join_rules") == {"join_rule": "invite"})
    guest.leave(room)
    check("declines", soon(lambda: host.membership(room, guest) == "leave"))
    check("is asked no more", soon(lambda: ear.listen().rooms.get(room) == "leave"))

    host.invite(guest, room)
    check("is asked again", soon(is_asked))
    host.kick(guest, room)
    check("hears that it is taken back", soon(lambda: ear.listen().rooms.get(room) == "leave"))
    check("can't come now", refused(lambda: guest.join(room, host.home), 403))

    host.invite(guest, room)
    check("is asked a third time", soon(is_asked))
    guest.join(room)  # the invite says through whom
    check("comes", soon(lambda: guest.id in host.members(room)))
    check("and all agree", soon(lambda: host.state(room) == guest.state(room)))
