"""What holds and what doesn't, a line each."""

import threading
import time
import traceback
from http.client import HTTPException
from pathlib import Path

from .users import Refused

PATIENCE = 30
FOLDER = Path(__file__).parent
TOPICS = {str(file) for file in FOLDER.glob("*.py")} - {str(FOLDER / "users.py")}


class Results:
    """Counts checks and prints them as they are made, from whichever thread."""

    def __init__(self):
        self.passed = self.failed = 0
        self.lock = threading.Lock()

    def of(self, case):
        """What a case makes its checks with: `check(what, holds)`."""

        def check(what, holds, why=""):
            with self.lock:
                self.passed += bool(holds)
                self.failed += not holds
                reason = f" ({why})" if why and not holds else ""
                print(f"{'ok  ' if holds else 'FAIL'}  {case}: {what}{reason}", flush=True)

        return check

    def run(self, case, talk, *who):
        """A case, to its end or to what it stumbles over."""
        check = self.of(case)
        try:
            talk(check, *who)
        except (OSError, HTTPException, Refused, KeyError) as error:
            # Where the case was, rather than the client that told it.
            frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename in TOPICS]
            where = f"{Path(frames[-1].filename).name}, line {frames[-1].lineno}" if frames else "its beginning"
            check(f"goes on after {where}", False, repr(error))

    def summary(self):
        return f"{self.passed} passed, {self.failed} failed"


def soon(holds, patience=PATIENCE):
    """Whether something comes to hold within `patience` seconds; what can't be asked yet doesn't."""
    until = time.monotonic() + patience
    while True:
        try:
            if holds():
                return True
        except (OSError, HTTPException, Refused, KeyError):
            pass
        if time.monotonic() > until:
            return False
        time.sleep(0.1)


def refused(deed, *status):
    """Whether a deed is refused, with one of these statuses."""
    try:
        deed()
    except Refused as no:
        return no.status in status
    return False
