"""What a child process does in the tests of how it is heard; it is imported there by its name."""

import os
import signal
import time

from robustness.errors import EngineError


def tells(job, tell):
    tell("say", "waiting")
    tell("progress", (1, 2))
    tell("kind", "cpu-abacus")
    tell("notice", "look")
    tell("failed", ("key", "no luck"))


def exits(job, tell):
    print("a line\nthe last line", flush=True)
    os._exit(3)


def is_killed(job, tell):
    os.kill(os.getpid(), signal.SIGKILL)


def raises(job, tell):
    raise ValueError("no luck")


def refuses(job, tell):
    raise EngineError("nothing answers")


def waits(job, tell):
    tell("say", str(os.getpid()))
    time.sleep(300)
