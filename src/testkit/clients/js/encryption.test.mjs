// What matrix-js-sdk clients with encryption (Element Web's, on the Rust crypto) go through with two homeservers, in order: each
// test goes on where the one before stopped. What is read here was decrypted; the servers see none of it.
//
// HOMESERVER_URL        base URL of alice's server; registration is open
// OTHER_HOMESERVER_URL  that of bob's and carol's

import assert from "node:assert/strict";
import { test } from "node:test";

import { Homeserver, stopAll, suffix, until } from "./homeserver.mjs";

const home = new Homeserver(process.env.HOMESERVER_URL);
const other = new Homeserver(process.env.OTHER_HOMESERVER_URL);

/** A syncing device with encryption. Who has the recovery key gets it through `secrets`; while `line.cut`, nothing reaches a server. */
const enter = async (homeserver, session, { secrets, line } = {}) =>
    homeserver.start(await session, {
        encrypted: {
            cryptoCallbacks: { getSecretStorageKey: async ({ keys }) => [Object.keys(keys)[0], secrets.key] },
            fetchFn: (...request) => (line?.cut ? Promise.reject(new TypeError("cut off")) : fetch(...request)),
        },
    });

/** The first cross-signing keys of a user; they need no further proof. */
const makeIdentity = (client) =>
    client.getCrypto().bootstrapCrossSigning({ authUploadDeviceSigningKeys: (request) => request(null) });

/** Makes a new device one of its user's: the identity comes from secret storage, for which it has to be known here. */
async function recover(client) {
    await client.getCrypto().userHasCrossSigningKeys();
    await client.getCrypto().bootstrapCrossSigning({});
}

/** A room into which `guest` is invited, then enters. */
async function bring(guest) {
    await alice.invite(roomId, guest.getUserId());
    const membership = () => guest.getRoom(roomId)?.getMyMembership();
    await until("the invitation arrives", () => membership() === "invite");
    await guest.joinRoom(roomId);
    await until("the join arrives", () => membership() === "join");
    await until("it is known to be encrypted", () => guest.getCrypto().isEncryptionEnabledInRoom(roomId));
    await until("the others see it", () => alice.getRoom(roomId).getMember(guest.getUserId())?.membership === "join");
}

const say = async (client, body) => (await client.sendMessage(roomId, { msgtype: "m.text", body })).event_id;

/** The content of an event, once this device has it and could open it. */
const reads = (client, id) =>
    until(`${client.getUserId()} (${client.getDeviceId()}) reads ${id}`, () => {
        const event = client.getRoom(roomId)?.findEventById(id);
        return event?.getWireType() === "m.room.encrypted" && !event.isDecryptionFailure() && event.getClearContent();
    });

/** The devices of a user that a client would encrypt for. */
const devicesOf = async (user, client) => {
    const found = await client.getCrypto().getUserDeviceInfo([user.getUserId()]);
    return [...(found.get(user.getUserId())?.keys() ?? [])];
};

/** Takes a key of a device's to open a session with it; nothing if it has none. */
const claim = async (client, user, device) => {
    const wanted = { one_time_keys: { [user]: { [device]: "signed_curve25519" } } };
    const answer = await client.http.authedRequest("POST", "/keys/claim", undefined, wanted);
    return Object.entries(answer.one_time_keys[user]?.[device] ?? {})[0];
};

const secrets = {};
const bobsLine = { cut: false };
let alice, bob, carol, roomId, before;

test("sign up, with an identity, secret storage and a backup", async () => {
    alice = await enter(home, home.signUp(`alice${suffix}`), { secrets });
    const crypto = alice.getCrypto();
    await makeIdentity(alice);
    await crypto.bootstrapSecretStorage({
        setupNewKeyBackup: true,
        createSecretStorageKey: async () => {
            const made = await crypto.createRecoveryKeyFromPassphrase();
            secrets.key = made.privateKey;
            return made;
        },
    });
    assert.ok(await crypto.isCrossSigningReady());
    assert.ok(await crypto.isSecretStorageReady());
    bob = await enter(other, other.signUp(`bob${suffix}`), { line: bobsLine });
    await makeIdentity(bob);
});

test("an encrypted room on two servers", async () => {
    const encryption = { type: "m.room.encryption", state_key: "", content: { algorithm: "m.megolm.v1.aes-sha2" } };
    ({ room_id: roomId } = await alice.createRoom({ preset: "private_chat", initial_state: [encryption] }));
    await until("the creator sees it", () => alice.getCrypto().isEncryptionEnabledInRoom(roomId));
    await bring(bob);
    before = await say(alice, "who is there?");
    assert.equal((await reads(bob, before)).body, "who is there?");
    assert.equal((await reads(alice, await say(bob, "me"))).body, "me");
});

test("who comes late reads what follows, and what was shared with the invitation", async () => {
    carol = await enter(other, other.signUp(`carol${suffix}`));
    await makeIdentity(carol);
    await bring(carol);
    assert.equal((await reads(carol, await say(alice, "welcome"))).body, "welcome");
    const room = carol.getRoom(roomId);
    while (!room.findEventById(before)) {
        assert.notEqual(room.oldState.paginationToken, null, "the room began without it");
        await carol.scrollback(room, 20);
    }
    assert.equal((await reads(carol, before)).body, "who is there?");
});

test("a new device is signed by its owner and restores the backup", async () => {
    const inBackup = async () => (await alice.http.authedRequest("GET", "/room_keys/version")).count;
    await until("the sessions are backed up", async () => (await inBackup()) >= 2);
    const second = await enter(home, home.logIn(`alice${suffix}`), { secrets });
    const crypto = second.getCrypto();
    await recover(second);
    await crypto.loadSessionBackupPrivateKeyFromSecretStorage();
    const restored = await crypto.restoreKeyBackup();
    assert.ok(restored.imported >= 2 && restored.imported === restored.total, JSON.stringify(restored));
    assert.equal((await reads(second, before)).body, "who is there?");
    await until("the other side sees the signature", async () => {
        const status = await bob.getCrypto().getDeviceVerificationStatus(alice.getUserId(), second.getDeviceId());
        return status?.signedByOwner;
    });
});

test("a fallback key opens a session once the one-time keys ran out", async () => {
    const ofBob = [bob.getUserId(), bob.getDeviceId()];
    bobsLine.cut = true; // so that nobody makes new ones
    const given = new Set();
    for (;;) {
        const [id, key] = await claim(alice, ...ofBob);
        if (key.fallback) break;
        assert.ok(!given.has(id), "a one-time key was given away twice");
        given.add(id);
    }
    assert.ok(given.size > 0);
    const newcomer = await enter(home, home.logIn(`alice${suffix}`), { secrets });
    await recover(newcomer);
    await until("it is known to be encrypted", () => newcomer.getCrypto().isEncryptionEnabledInRoom(roomId));
    const said = await say(newcomer, "are you asleep?");
    bobsLine.cut = false;
    bob.retryImmediately();
    assert.equal((await reads(bob, said)).body, "are you asleep?");
    await until("there are one-time keys again", async () => {
        const [, key] = await claim(alice, ...ofBob);
        return !key.fallback;
    });
});

test("a device in a drawer is told what its user is to read", async (step) => {
    if (!(await alice.getCrypto().isDehydrationSupported())) return step.skip("the server has none");
    await alice.getCrypto().startDehydration();
    await until("the other side knows it", async () => {
        const found = await bob.getCrypto().getUserDeviceInfo([alice.getUserId()]);
        return [...found.get(alice.getUserId()).values()].some((device) => device.dehydrated);
    });
    const said = await say(bob, "for your drawer");
    const taken = await enter(home, home.logIn(`alice${suffix}`), { secrets });
    await recover(taken);
    let keys = 0;
    taken.on("dehydration.RehydrationProgress", (count) => (keys = count));
    await taken.getCrypto().startDehydration();
    assert.ok(keys > 0, "there was no key in it");
    assert.equal((await reads(taken, said)).body, "for your drawer");
});

test("a file", async () => {
    const { Attachment, EncryptedAttachment } = await import("@matrix-org/matrix-sdk-crypto-wasm");
    const encrypted = Attachment.encrypt(new TextEncoder().encode("dear bob"));
    const { content_uri: url } = await alice.uploadContent(Buffer.from(encrypted.encryptedData));
    const file = { ...JSON.parse(encrypted.mediaEncryptionInfo), url };
    const sent = await alice.sendMessage(roomId, { msgtype: "m.file", body: "letter.txt", file });
    const received = (await reads(bob, sent.event_id)).file;
    const where = bob.mxcUrlToHttp(received.url, undefined, undefined, undefined, false, true, true);
    const answer = await fetch(where, { headers: { authorization: `Bearer ${bob.getAccessToken()}` } });
    assert.equal(answer.status, 200);
    const bytes = new Uint8Array(await answer.arrayBuffer());
    const letter = Attachment.decrypt(new EncryptedAttachment(bytes, JSON.stringify(received)));
    assert.equal(new TextDecoder().decode(letter), "dear bob");
});

test("a device that is deleted is encrypted for no more", async () => {
    const second = await enter(other, other.logIn(`bob${suffix}`));
    const device = second.getDeviceId();
    await until("the other side knows it", async () => (await devicesOf(bob, alice)).includes(device));
    assert.equal((await reads(second, await say(alice, "to both"))).body, "to both");
    await second.logout(true);
    await until("the other side knows it no more", async () => !(await devicesOf(bob, alice)).includes(device));
    assert.equal(await claim(alice, bob.getUserId(), device), undefined);
    assert.equal((await reads(bob, await say(alice, "to the one"))).body, "to the one");
});

test.after(stopAll);
