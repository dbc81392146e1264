"""The process that a server runs in: it does what it is told on its standard input, where functions come pickled."""

from __future__ import annotations

import os
import pickle
import resource
import sys
import traceback
from typing import Any, BinaryIO


def allow_many_files() -> None:
    """Let this process have as many sockets as it may."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def serve(requests: BinaryIO, answers: BinaryIO) -> None:
    """Make a server of the class that comes first; then call each function with it, and answer with what it returns.

    An answer is a pair of the value and of the traceback, if it failed.
    """
    server = pickle.load(requests)()  # noqa: S301 - from the benchmark
    while True:
        try:
            function, arguments, options = pickle.load(requests)  # noqa: S301 - from the benchmark
        except EOFError:
            return
        answer: tuple[Any, str | None]
        try:
            answer = function(server, *arguments, **options), None
        except Exception:  # noqa: BLE001 - the benchmark wants to know
            answer = None, traceback.format_exc()
        pickle.dump(answer, answers)
        answers.flush()


if __name__ == "__main__":
    allow_many_files()
    with os.fdopen(os.dup(1), "wb") as stream:
        os.dup2(2, 1)  # what servers print is no answer
        serve(sys.stdin.buffer, stream)
    os._exit(0)  # whatever threads the server has
