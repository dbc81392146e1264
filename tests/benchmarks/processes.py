"""Servers in processes of their own, as the clients of a benchmark see them."""

from __future__ import annotations

import contextlib
import os
import pickle
import re
import socket
import subprocess
import sys
import tempfile
from abc import ABC, abstractmethod
from operator import attrgetter, methodcaller
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from tools import find_tool

from benchmarks import inside
from benchmarks.servers import HOST, find_free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.servers import Server

#: Where the modules are that a process of a server imports.
_TESTS = Path(__file__).parents[1]


#: The environment of what is measured: nothing is but by us, and nothing is compiled anew each time.
ENVIRONMENT = {
    name: value
    for name, value in os.environ.items()
    if not name.startswith(("COVERAGE", "PYTEST")) and name != "PYTHONDONTWRITEBYTECODE"
}


class BenchmarkError(Exception):
    """A server did not do what it was to do."""


class Process(ABC):
    """A process with a server in it, which accepts connections from the beginning of `with` to its end."""

    address: tuple[str, int]

    def __init__(self, command: Sequence[str], **options: Any) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed by __exit__
        self._process = subprocess.Popen(command, stderr=self._errors, **options)  # noqa: S603 - from this file

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            stack.push(self)  # ends it if it does not start
            self.start()
            stack.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        self._process.terminate()
        self._process.communicate()
        self._errors.close()

    @abstractmethod
    def start(self) -> None:
        """Wait until the server accepts connections."""

    @abstractmethod
    def reset(self) -> None:
        """Forget the messages."""

    @abstractmethod
    def expect(self, count: int) -> None:
        """Raise BenchmarkError if it has not received so many messages since `reset`."""

    def complaint(self) -> str:
        """Return the last of what it has written to standard error."""
        self._errors.seek(0)
        return self._errors.read().decode(errors="replace")[-1000:].strip()

    def status(self, name: str) -> int:
        """Return a number of Linux' /proc/PID/status: VmRSS and VmHWM are KiB of memory now and at the peak."""
        text = Path(f"/proc/{self._process.pid}/status").read_text("utf-8")
        [number] = re.findall(rf"^{name}:\s*(\d+)", text, re.MULTILINE)
        return int(number)

    def forget_peak(self) -> None:
        """Have the peak of memory be what there is now."""
        Path(f"/proc/{self._process.pid}/clear_refs").write_text("5", "ascii")


class PythonProcess(Process):
    """A Python server of its own process."""

    def __init__(self, server: type[Server]) -> None:
        super().__init__(
            [sys.executable, "-m", "benchmarks.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=ENVIRONMENT | {"PYTHONPATH": str(_TESTS)},
        )
        self._server = server

    def start(self) -> None:
        """Start the server."""
        self._send(self._server)
        self.run(methodcaller("start"))
        self.address = self.run(attrgetter("address"))

    def _send(self, request: object) -> None:
        assert self._process.stdin
        pickle.dump(request, self._process.stdin)
        self._process.stdin.flush()

    def run(self, function: Callable[..., Any], *arguments: object, **options: object) -> Any:
        """Return what a function of an importable module returns there, whose first argument is the server."""
        assert self._process.stdout
        try:
            self._send((function, arguments, options))
            value, failure = pickle.load(self._process.stdout)  # noqa: S301 - from our worker
        except (EOFError, BrokenPipeError):
            raise BenchmarkError(self.complaint()) from None
        if failure:
            raise BenchmarkError(failure)
        return value

    def reset(self) -> None:
        """Forget the messages."""
        self.run(inside.reset)

    def expect(self, count: int) -> None:
        """Raise BenchmarkError if it has not received so many messages since `reset`."""
        received = self.run(methodcaller("count"))
        if received != count:
            msg = f"{count} messages were sent, {received} received"
            raise BenchmarkError(msg)


class Sink(Process):
    """Postfix's smtp-sink, which keeps nothing, and tells nobody what it has counted."""

    def __init__(self) -> None:
        self.address = HOST, find_free_port()
        user = ["-u", "postfix"] if os.geteuid() == 0 else []
        super().__init__([find_tool("smtp-sink"), *user, "-m", "4096", f"{HOST}:{self.address[1]}", "1024"])

    def start(self) -> None:
        """Wait until smtp-sink accepts connections."""
        while True:
            with contextlib.suppress(ConnectionRefusedError), socket.create_connection(self.address):
                break
            if self._process.poll() is not None:
                raise BenchmarkError(self.complaint())

    def reset(self) -> None:
        """Forget the messages, which it does anyway."""

    def expect(self, count: int) -> None:
        """Believe it: each client has counted its 250s."""
