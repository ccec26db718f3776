// What a matrix-js-sdk client (Element Web's library) goes through with a homeserver, in order: each
// test goes on where the one before stopped.
//
// HOMESERVER_URL      base URL; registration is open
// HOMESERVER_RESTART  a command that kills the server, starts it again and returns when it answers

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { test } from "node:test";
import { promisify } from "node:util";

import { Homeserver, stopAll, suffix, until } from "./homeserver.mjs";

const restart = process.env.HOMESERVER_RESTART;
const home = new Homeserver(process.env.HOMESERVER_URL);
const signUp = (name) => home.signUp(name);
const logIn = (name) => home.logIn(name);
const clientOf = (session) => home.clientOf(session);
const start = (session, initialSyncLimit) => home.start(session, { initialSyncLimit });

let alice, bob, roomId;
const roomOf = (client) => client.getRoom(roomId);
const eventOf = (client, id) => roomOf(client)?.findEventById(id);
const text = (body) => ({ msgtype: "m.text", body });
const say = async (client, body) => (await client.sendMessage(roomId, text(body))).event_id;
const seen = (client, id) => until(`${client.getUserId()} sees ${id}`, () => eventOf(client, id));
const unread = (client, kind) => roomOf(client).getRoomUnreadNotificationCount(kind);

test("sign up", async () => {
    const session = await signUp(`alice${suffix}`);
    await assert.rejects(signUp(`alice${suffix}`), { errcode: "M_USER_IN_USE" });
    alice = await start(session);
    bob = await start(await signUp(`bob${suffix}`));
    assert.equal((await alice.whoami()).user_id, session.user_id);
});

test("create a room, invite, join", async () => {
    ({ room_id: roomId } = await alice.createRoom({ preset: "private_chat", name: "Scenario" }));
    await until("the creator sees the room", () => roomOf(alice)?.getMyMembership() === "join");
    await assert.rejects(bob.joinRoom(roomId), { errcode: "M_FORBIDDEN" });
    await alice.invite(roomId, bob.getUserId());
    await until("the invitation arrives", () => roomOf(bob)?.getMyMembership() === "invite");
    assert.equal(roomOf(bob).name, "Scenario");
    await bob.joinRoom(roomId);
    await until("the join arrives", () => roomOf(bob)?.getMyMembership() === "join");
    await until("the others see it", () => roomOf(alice).getMember(bob.getUserId())?.membership === "join");
});

test("send", async () => {
    const id = await say(alice, "hello");
    const event = await seen(bob, id);
    assert.equal(event.getContent().body, "hello");
    assert.equal(event.getSender(), alice.getUserId());
});

test("edit", async () => {
    const id = await say(alice, "teh text");
    await seen(bob, id);
    await alice.sendMessage(roomId, {
        ...text("* the text"),
        "m.new_content": text("the text"),
        "m.relates_to": { rel_type: "m.replace", event_id: id },
    });
    await until("the edit is shown", () => eventOf(bob, id).getContent().body === "the text");
    // Whoever comes later gets it bundled with the event.
    const fetched = await bob.fetchRoomEvent(roomId, id);
    assert.equal(fetched.unsigned["m.relations"]["m.replace"].content["m.new_content"].body, "the text");
});

test("react, and take it back", async () => {
    const id = await say(alice, "like this?");
    await seen(bob, id);
    const relation = { rel_type: "m.annotation", event_id: id, key: "👍" };
    const reaction = (await bob.sendEvent(roomId, "m.reaction", { "m.relates_to": relation })).event_id;
    const reactions = () => {
        const relations = roomOf(alice).relations.getChildEventsForEvent(id, "m.annotation", "m.reaction");
        return relations?.getRelations().filter((event) => !event.isRedacted()).length ?? 0;
    };
    await until("the reaction is counted", () => reactions() === 1);
    await assert.rejects(bob.sendEvent(roomId, "m.reaction", { "m.relates_to": relation }), {
        errcode: "M_DUPLICATE_ANNOTATION",
    });
    await bob.redactEvent(roomId, reaction);
    await until("it is taken back", () => reactions() === 0);
});

test("redact", async () => {
    const id = await say(alice, "a secret");
    await seen(bob, id);
    await alice.redactEvent(roomId, id, undefined, { reason: "slip" });
    await until("the redaction is shown", () => eventOf(bob, id).isRedacted());
    assert.deepEqual((await bob.fetchRoomEvent(roomId, id)).content, {});
});

test("thread", async () => {
    const root = await say(alice, "a topic");
    // One that doesn't sync: the library fails a reply whose echo is there before the answer to its sending, whose
    // order nobody promises (it looks for the echo in the main timeline alone: Room.updatePendingEvent).
    const replying = clientOf(await logIn(`bob${suffix}`));
    for (const body of ["first", "second"]) await replying.sendMessage(roomId, root, text(body));
    const thread = await until("the thread appears", () => roomOf(alice).getThread(root));
    await until("it has both replies", () => thread.length === 2);
    const bundled = (await alice.fetchRoomEvent(roomId, root)).unsigned["m.relations"]["m.thread"];
    assert.equal(bundled.count, 2);
    assert.equal(bundled.latest_event.content.body, "second");
    await until("it counts as unread", () => roomOf(alice).getThreadUnreadNotificationCount(root, "total") === 2);
    const last = await until("its last event", () => thread.events.at(-1)?.getContent().body === "second" && thread.events.at(-1));
    await alice.sendReadReceipt(last);
    await until("it counts as read", () => roomOf(alice).getThreadUnreadNotificationCount(root, "total") === 0);
});

test("unread counts and read receipts", async () => {
    const before = await seen(alice, await say(bob, "catch up"));
    await alice.sendReadReceipt(before);
    await until("everything is read", () => unread(alice, "total") === 0);
    await say(bob, "one");
    await say(bob, "two");
    const mention = { ...text("three"), "m.mentions": { user_ids: [alice.getUserId()] } };
    const last = (await bob.sendMessage(roomId, mention)).event_id;
    await until("three are unread", () => unread(alice, "total") === 3);
    assert.equal(unread(alice, "highlight"), 1);
    await alice.sendReadReceipt(await seen(alice, last));
    await until("nothing is unread", () => unread(alice, "total") === 0 && unread(alice, "highlight") === 0);
    await until("the other sees how far", () => roomOf(bob).getEventReadUpTo(alice.getUserId(), true) === last);
});

test("page back to the first message", async () => {
    const sent = [];
    for (let index = 0; index < 45; index++) sent.push(await say(alice, `page ${index}`));
    const fresh = await start(await logIn(`bob${suffix}`), 5);
    const room = await until("the room", () => roomOf(fresh));
    for (let pages = 0; room.oldState.paginationToken !== null; pages++) {
        assert.ok(pages < 30, "pagination never ends");
        await fresh.scrollback(room, 10);
    }
    const timeline = room.getLiveTimeline().getEvents();
    assert.equal(timeline[0].getType(), "m.room.create");
    const ids = timeline.map((event) => event.getId());
    assert.equal(new Set(ids).size, ids.length, "an event came twice");
    assert.deepEqual(ids.filter((id) => sent.includes(id)), sent);
});

test("two devices converge", async () => {
    const other = await start(await logIn(`alice${suffix}`));
    assert.notEqual(other.getDeviceId(), alice.getDeviceId());
    await alice.setAccountDataRaw("org.example.setting", { on: true });
    await until("account data", () => other.getAccountData("org.example.setting")?.getContent().on === true);
    await alice.setRoomTag(roomId, "m.favourite", { order: 0.5 });
    await until("the tag", () => roomOf(other)?.tags["m.favourite"]?.order === 0.5);
    const mine = await say(alice, "from the first");
    await seen(other, mine); // what a device sends it shows at once, before what it hasn't yet received
    const theirs = await say(other, "from the second");
    for (const client of [alice, other]) for (const id of [mine, theirs]) await seen(client, id);
    const last = await seen(alice, await say(bob, "to both"));
    await until("unread on the other", () => unread(other, "total") > 0);
    await alice.sendReadReceipt(last);
    await until("read on both", () => unread(alice, "total") === 0 && unread(other, "total") === 0);
    const tail = (client) => roomOf(client).getLiveTimeline().getEvents().map((event) => event.getId()).slice(-3);
    await until("the same timeline", () => tail(alice).join() === tail(other).join());
    await other.logout(true);
    await assert.rejects(other.whoami(), { errcode: "M_UNKNOWN_TOKEN" });
    assert.equal((await alice.whoami()).device_id, alice.getDeviceId());
});

test("reconnect after the server was killed", async () => {
    const before = await say(bob, "before the crash");
    await promisify(execFile)("bash", ["-c", restart]);
    assert.equal((await bob.fetchRoomEvent(roomId, before)).content.body, "before the crash");
    const after = await say(bob, "after the crash");
    await until("the syncs go on", () => {
        for (const client of [alice, bob]) client.retryImmediately();
        return eventOf(alice, after) && eventOf(alice, before);
    });
    const order = roomOf(alice).getLiveTimeline().getEvents().map((event) => event.getId());
    assert.ok(order.indexOf(before) < order.indexOf(after));
    assert.equal(new Set(order).size, order.length, "an event came twice");
});

test("leave", async () => {
    await bob.leave(roomId);
    await until("the others see it", () => roomOf(alice).getMember(bob.getUserId())?.membership === "leave");
    await until("it is gone", () => roomOf(bob).getMyMembership() === "leave");
    await assert.rejects(say(bob, "still here?"), { errcode: "M_FORBIDDEN" });
});

test("come back", async () => {
    await alice.invite(roomId, bob.getUserId());
    await until("the invitation arrives", () => roomOf(bob).getMyMembership() === "invite");
    await bob.joinRoom(roomId);
    await until("the join arrives", () => roomOf(bob).getMyMembership() === "join");
    await until("the others see it", () => roomOf(alice).getMember(bob.getUserId())?.membership === "join");
    await seen(alice, await say(bob, "here again"));
});

test.after(stopAll);
