// Users of a homeserver by matrix-js-sdk, and how to wait for what they are to see.

import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";

// The library narrates; what a test has to say is in its failure.
for (const level of ["trace", "debug", "info", "log", "warn"]) console[level] = () => {};
export const sdk = await import("matrix-js-sdk");

/** What tells the users of this run from those of others. */
export const suffix = randomBytes(6).toString("hex");
const password = `${suffix}-Correct-Horse`;
const silent = Object.fromEntries(["trace", "debug", "info", "warn", "error"].map((level) => [level, () => {}]));
silent.getChild = () => silent;

const started = [];
export const stopAll = () => started.forEach((client) => client.stopClient());

/** Waits until `found` gives something true, and gives that: what a sync brings is there when it is there. */
export async function until(what, found, seconds = 30) {
    const end = Date.now() + seconds * 1000;
    for (;;) {
        const value = await found();
        if (value) return value;
        assert.ok(Date.now() < end, `waited ${seconds} s in vain: ${what}`);
        await new Promise((resolve) => setTimeout(resolve, 20));
    }
}

/** A homeserver with open registration. */
export class Homeserver {
    constructor(baseUrl) {
        this.baseUrl = baseUrl;
    }

    signUp(username) {
        return sdk.createClient({ baseUrl: this.baseUrl, logger: silent }).registerRequest({
            username,
            password,
            auth: { type: "m.login.dummy" },
            initial_device_display_name: "scenario",
        });
    }

    logIn(username) {
        return sdk.createClient({ baseUrl: this.baseUrl, logger: silent }).loginRequest({
            type: "m.login.password",
            identifier: { type: "m.id.user", user: username },
            password,
        });
    }

    /** A client for a session. */
    clientOf(session, more = {}) {
        return sdk.createClient({
            baseUrl: this.baseUrl,
            userId: session.user_id,
            accessToken: session.access_token,
            deviceId: session.device_id,
            timelineSupport: true,
            logger: silent,
            ...more,
        });
    }

    /** A client for a session, syncing, its first sync done; with encryption where `encrypted` says what else it takes. */
    async start(session, { initialSyncLimit = 20, encrypted } = {}) {
        const client = this.clientOf(session, encrypted);
        if (encrypted) await client.initRustCrypto({ useIndexedDB: false });
        started.push(client);
        await client.startClient({ initialSyncLimit, lazyLoadMembers: true, threadSupport: true, pollTimeout: 10_000 });
        await until("the first sync", () => client.isInitialSyncComplete());
        return client;
    }
}
