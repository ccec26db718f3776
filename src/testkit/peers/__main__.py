"""Servers that share rooms, through nothing but their client APIs: two Comity and a Synapse.

    python3 -m peers talk COMITY SYNAPSE [WORD…]    the conversations; with words, those whose names have them all
    python3 -m peers clients COMITY SYNAPSE LABEL=COMMAND…    client libraries with encryption, each in every pairing
    python3 -m peers kill COMITY KILLS [SEED]       two Comity servers, killed again and again

COMITY is the binary, SYNAPSE a virtual environment. Each check is a line that says what it proves; what it waits for is
asked again until it is there. The exit code says whether all held. Servers know each other by loopback addresses, TLS
and an authority of the run's own.
"""

import shutil
import signal
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from . import away, conversation, entering, finding, partition, signs
from .authority import Authority
from .checks import Results
from .clients import clients
from .gate import Gates
from .kill import kill
from .servers import Comity, Synapse, addresses

VERSIONS = ["6", "10", "11", "12"]
# What a host and a guest go through, and in which room versions; each with users of its own.
TALKS = [
    (conversation.visits, VERSIONS),
    (conversation.history, VERSIONS),
    (entering.invites, VERSIONS),
    (entering.restricted, ["10", "11", "12"]),
    (entering.knocking, ["10", "11", "12"]),
    (entering.knock_restricted, ["10", "11", "12"]),
    (entering.no_knocking, ["6"]),
    (finding.aliases, VERSIONS),
    (finding.spaces, VERSIONS),
    (finding.profiles, VERSIONS),
    (signs.signs, VERSIONS),
]
# They wait for servers most of the time.
AT_ONCE = 4
# They compute more than they wait.
PROGRAMS_AT_ONCE = 2


@contextmanager
def world():
    """An authority, gates, addresses, a folder: what servers are made with. What was started is killed at the end."""
    scratch = Path(tempfile.mkdtemp(prefix="peers-"))
    places, servers = addresses(), []
    authority, gates = Authority(scratch), Gates()

    def make(kind, label):
        servers.append(kind(label, next(places), scratch, authority, gates))
        servers[-1].start()
        return servers[-1]

    try:
        yield make, servers
    finally:
        for server in servers:
            server.kill()
        shutil.rmtree(scratch, ignore_errors=True)


def three(make, comity, synapse):
    """Two Comity and a Synapse."""
    one, two = (make(partial(Comity, comity), label) for label in ("Comity", "the second Comity"))
    other = make(partial(Synapse, Path(synapse)), "Synapse")
    return [server.awake() for server in (one, two, other)]


def pairings(one, two, other):
    """Hosts and guests."""
    return [(other, one), (one, other), (one, two)]


def converse(results, make, comity, synapse, *programs):
    servers, runs = three(make, comity, synapse), []
    with ThreadPoolExecutor(PROGRAMS_AT_ONCE) as together:
        for program in programs:
            label, command = program.split("=", 1)
            for host, guest in pairings(*servers):
                name = f"a user of {host} with others of {guest}"
                runs.append(together.submit(results.run, name, clients, label, command, host, guest))
    for run in runs:
        run.result()


def talk(results, make, comity, synapse, *words):
    one, two, other = three(make, comity, synapse)

    def wanted(name):
        return all(word in name for word in words)

    meetings = []
    with ThreadPoolExecutor(AT_ONCE) as together:
        for topic, versions in TALKS:
            for version in versions:
                for host, guest in pairings(one, two, other):
                    name = f"{topic.__name__}, version {version}, a user of {guest} with one of {host}"
                    if wanted(name):
                        meetings.append(together.submit(meet, results, name, topic, version, host, guest))
    for meeting in meetings:
        meeting.result()  # a mistake in a conversation ends the run
    # From here on servers can't be reached, or aren't there.
    for name, topic in (("apart", partition.apart), ("one way", partition.one_way)):
        if wanted(name):
            results.run(name, lambda check, topic=topic: topic(results, VERSIONS, [one, other, two]))
    for version, gone, stays in (("10", one, other), ("11", other, one), ("12", two, one), ("6", one, two)):
        name = f"away, version {version}, {gone} from {stays}"
        if wanted(name):
            results.run(name, away.away, version, gone, stays)


def meet(results, name, topic, version, host, guest):
    results.run(name, lambda check: topic(check, version, host.user(), guest.user()))


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    task, comity, *more = sys.argv[1:]
    comity, results = Path(comity).absolute(), Results()
    with world() as (make, servers):
        if task == "talk":
            talk(results, make, comity, *more)
        elif task == "clients":
            converse(results, make, comity, *more)
        else:
            kills, seed = int(more[0]), int(more[1]) if len(more) > 1 else 1
            pair = [make(partial(Comity, comity), label).awake() for label in ("Comity", "the second Comity")]
            results.run("kill", kill, pair, kills, seed)
        if results.failed:
            for server in servers:
                print(f"-- the end of the log of {server}\n{server.last_words()}")
    print(results.summary())
    sys.exit(results.failed > 0 or results.passed == 0)


main()
