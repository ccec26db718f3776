"""Client libraries with encryption: a program a library, told the base URLs of two servers, plays users of both in one
encrypted room and says by its exit code whether all went well."""

import os
import subprocess

LIMIT = 300


def clients(check, label, command, host, guest):
    environment = os.environ | {"HOMESERVER_URL": host.url, "OTHER_HOMESERVER_URL": guest.url}
    if "verifying keys" not in host.lacks:
        environment["HOMESERVER_VERIFIES"] = "yes"
    try:
        ran = subprocess.run(
            command, shell=True, env=environment, timeout=LIMIT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        holds, said = ran.returncode == 0, ran.stdout
    except subprocess.TimeoutExpired as late:
        holds, said = False, f"{(late.stdout or b'').decode(errors='replace')}\nnot done after {LIMIT} s"
    check(f"users of {label} talk in an encrypted room", holds, f"it said:\n{said}")
