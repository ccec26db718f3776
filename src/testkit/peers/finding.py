"""How people find what another server has: rooms by alias, by list, by space; and each other's profiles."""

from .checks import refused, soon
from .users import path


def aliases(check, version, host, guest):
    """A room by its alias and in its server's list."""
    local = f"room{host.id[1:].split(':')[0]}v{version}"
    alias = f"#{local}:{host.home.name}"
    room = host.create(version, room_alias_name=local, visibility="public", name=f"Room {local}", topic="to be found")
    found = guest.ask("GET", path("directory", "room", alias))
    check("finds the room by its alias", found["room_id"] == room and host.home.name in found["servers"])

    def listed():
        asked = {"filter": {"generic_search_term": f"Room {local}"}}
        answer = guest.ask("POST", path("publicRooms", server=host.home.name), asked)
        return [entry for entry in answer["chunk"] if entry["room_id"] == room]

    check("finds the room in the list", soon(listed))
    entry = (listed() or [{}])[0]
    told = [entry.get(key) for key in ("canonical_alias", "topic", "num_joined_members")]
    check("with what there is to know", told == [alias, "to be found", 1], told)
    check("joins by the alias alone", guest.join(alias)["room_id"] == room)
    check("is in", soon(lambda: guest.id in host.members(room)))
    host.ask("DELETE", path("directory", "room", alias))
    check("doesn't find an alias that is gone", refused(lambda: guest.ask("GET", path("directory", "room", alias)), 404))


def spaces(check, version, host, guest):
    """A space of the host's; what is in it only the host's server knows."""

    def child(name, *state, **more):
        return host.create(version, [("m.room.name", {"name": name}), *state], **more)

    space = host.create(version, creation_content={"type": "m.space"}, name="space")
    floor = host.create(version, creation_content={"type": "m.space"}, name="floor")
    open_room, shut_room, below = child("open"), child("shut", preset="private_chat"), child("below")
    children = [(space, floor), (space, open_room), (space, shut_room), (floor, below)]
    expected = {space, floor, open_room, below}
    if version not in ("6", "7"):
        allow = [{"type": "m.room_membership", "room_id": space}]
        members_room = child("members", ("m.room.join_rules", {"join_rule": "restricted", "allow": allow}))
        children.append((space, members_room))
        expected.add(members_room)
    for parent, room in children:
        host.set(parent, "m.space.child", {"via": [host.home.name]}, room)

    def tree(who, **more):
        return who.ask("GET", path("rooms", space, "hierarchy", **more), api="v1")["rooms"]

    guest.join(space, host.home)
    check("is in", soon(lambda: guest.id in host.members(space)))
    walked = {room["room_id"]: room for room in tree(guest)}
    check("is shown all it may see, two floors down", set(walked) == expected, sorted(set(walked) ^ expected))
    check("by name", walked.get(below, {}).get("name") == "below")
    edges = {(room, edge["state_key"]) for room, entry in walked.items() for edge in entry["children_state"]}
    # An edge is shown whether or not what it leads to is.
    check("and what is in what", edges == set(children), sorted(edges ^ set(children)))
    at_once = {room["room_id"] for room in tree(guest, max_depth=1)}
    check("as deep as was asked", at_once == expected - {below}, at_once)
    check("joins a room found there", guest.join(open_room, host.home)["room_id"] == open_room)

    def summary(room):
        return guest.ask("GET", path("room_summary", room, via=host.home.name), api="v1")

    check("is told of a room that only the other has", summary(below)["name"] == "below")
    check("not of one that is shut", refused(lambda: summary(shut_room), 403, 404))


def profiles(check, version, host, guest):
    """What people show of themselves, asked for and in rooms."""
    host.ask("PUT", path("profile", host.id, "displayname"), {"displayname": "Before"})
    room = host.create(version)
    guest.join(room, host.home)
    check("sees the other's name", soon(lambda: guest.members(room)[host.id].get("display_name") == "Before"))
    picture = f"mxc://{host.home.name}/picture"
    host.ask("PUT", path("profile", host.id, "displayname"), {"displayname": "After"})
    host.ask("PUT", path("profile", host.id, "avatar_url"), {"avatar_url": picture})
    shown = {"display_name": "After", "avatar_url": picture}
    check("sees it change in the room", soon(lambda: guest.members(room)[host.id] == shown))
    guest.ask("PUT", path("profile", guest.id, "displayname"), {"displayname": "Guest"})
    check("is seen to change", soon(lambda: host.members(room)[guest.id].get("display_name") == "Guest"))
    asked = guest.ask("GET", path("profile", host.id))
    check("is told by asking", (asked.get("displayname"), asked.get("avatar_url")) == ("After", picture), asked)
    name = guest.ask("GET", path("profile", host.id, "displayname"))
    check("one field too", name == {"displayname": "After"}, name)
    nobody = f"@nobody:{host.home.name}"
    check("of nobody nothing", refused(lambda: guest.ask("GET", path("profile", nobody)), 404))
