"""The Python servers that take part, as they come: but no message is too large for those that can be told so.

Each keeps what it receives, and runs in a thread of the process that starts it.
"""

from __future__ import annotations

import importlib
import importlib.util
import platform
import socket
import sys
import threading
import warnings
from abc import ABC, abstractmethod
from importlib.metadata import version
from typing import Any, ClassVar

HOST = "127.0.0.1"
#: How this project's own server is called in races.
OURS = "ours"
#: What clients log in with.
USER, PASSWORD = "ada", "secret"


def find_free_port() -> int:
    """Return a port that was free just now, for those who must be told one."""
    with socket.create_server((HOST, 0)) as reserved:
        return int(reserved.getsockname()[1])


class Server(ABC):
    """A server that can be started again and again."""

    #: The modules that must be there.
    needs: ClassVar[tuple[str, ...]]
    #: Where it listens, since it was started.
    address: tuple[str, int]

    @abstractmethod
    def start(self) -> None:
        """Accept connections."""

    @abstractmethod
    def stop(self) -> None:
        """Accept none any more, and end those that are open."""

    @property
    @abstractmethod
    def received(self) -> Any:
        """The messages that have come since `start` or `reset`."""

    def reset(self) -> None:
        """Forget the messages."""
        self.received.clear()

    def count(self) -> int:
        """Return how many messages there are."""
        return len(self.received)

    @classmethod
    def version(cls) -> str:
        """Return the version of the distribution, which is called as its module by most."""
        return version(cls.needs[0].replace("_", "-"))


class Ours(Server):
    """RecordingServer."""

    needs = ("pytest_smtpd",)
    options: ClassVar[dict[str, Any]] = {}

    def start(self) -> None:
        """Accept connections."""
        from pytest_smtpd import RecordingServer

        self._server = RecordingServer(data_size_limit=0, **self.options).start()
        self.address = self._server.address

    def stop(self) -> None:
        """Accept none any more, and end those that are open."""
        self._server.stop()

    @property
    def received(self) -> Any:
        """The messages."""
        return self._server.messages

    def reset(self) -> None:
        """Forget the messages and the dialogues."""
        self._server.clear()

    @classmethod
    def version(cls) -> str:
        """Return the project's version."""
        return version("pytest-smtpd-server")


class SecureOurs(Ours):
    """RecordingServer with STARTTLS and AUTH, and nothing without them."""

    options: ClassVar[dict[str, Any]] = {"users": {USER: PASSWORD}, "require_auth": True, "require_tls": True}


class Smtpd(Server):
    """The classic smtpd, of Python up to 3.11, then of PyPI."""

    needs = ("smtpd",)

    def start(self) -> None:
        """Accept connections."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            smtpd: Any = importlib.import_module("smtpd")
            self._asyncore: Any = importlib.import_module("asyncore")
        self._received: list[Any] = []
        self._sockets: dict[int, Any] = {}
        server = smtpd.SMTPServer((HOST, 0), None, data_size_limit=0, map=self._sockets)
        server.process_message = lambda *message, **_: self._received.append(message)
        server.listen(1024)  # with its own 5, a hundred clients at once would measure how TCP tries again
        self.address = server.socket.getsockname()
        self._stopping = False
        self._thread = threading.Thread(target=self._loop)
        self._thread.start()

    def _loop(self) -> None:
        while not self._stopping:
            # By poll, as select ends at 1024 files.
            self._asyncore.loop(timeout=0.05, use_poll=True, map=self._sockets, count=1)
        self._asyncore.close_all(self._sockets, ignore_all=True)

    def stop(self) -> None:
        """Accept none any more, and end those that are open."""
        self._stopping = True
        self._thread.join()

    @property
    def received(self) -> Any:
        """The messages."""
        return self._received

    @classmethod
    def version(cls) -> str:
        """Return the version of Python, or of what replaces the module there."""
        return platform.python_version() if sys.version_info < (3, 12) else version("standard-smtpd")


class Aiosmtpd(Server):
    """aiosmtpd's Controller with a handler that keeps what comes."""

    needs = ("aiosmtpd",)

    def start(self) -> None:
        """Accept connections."""
        controller: Any = importlib.import_module("aiosmtpd.controller")
        self._received: list[Any] = []
        # Port 0 is nothing that it could connect to itself on, which it does when it starts.
        self._controller = controller.Controller(self, hostname=HOST, port=find_free_port(), **self._options())
        self._controller.start()
        self.address = HOST, self._controller.port

    def _options(self) -> dict[str, Any]:
        return {"data_size_limit": None}

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:  # noqa: N802 - aiosmtpd's name
        """Keep a message."""
        self._received.append(envelope)
        return "250 OK"

    def stop(self) -> None:
        """Accept none any more, and end those that are open."""
        self._controller.stop()

    @property
    def received(self) -> Any:
        """The messages."""
        return self._received


class SecureAiosmtpd(Aiosmtpd):
    """aiosmtpd with STARTTLS and AUTH, and nothing without them; its certificate is ours."""

    def _options(self) -> dict[str, Any]:
        from pytest_smtpd.network.tls import server_context

        result: Any = importlib.import_module("aiosmtpd.smtp").AuthResult
        return {
            "tls_context": server_context(),
            "require_starttls": True,
            "auth_required": True,
            "authenticator": lambda _server, _session, _envelope, _mechanism, login: result(
                success=(login.login, login.password) == (USER.encode(), PASSWORD.encode())
            ),
        }


class Smtpdfix(Server):
    """What smtpdfix's fixture starts."""

    needs = ("smtpdfix",)

    def start(self) -> None:
        """Accept connections."""
        self._fix = importlib.import_module("smtpdfix").SMTPDFix(hostname=HOST)
        self._controller: Any = self._fix.__enter__()
        self.address = HOST, self._controller.port

    def stop(self) -> None:
        """Accept none any more, and end those that are open."""
        self._fix.__exit__(None, None, None)

    @property
    def received(self) -> Any:
        """The messages: `messages` would be a copy, and nothing else empties it without a restart."""
        return self._controller._messages  # noqa: SLF001


class PytestLocalserver(Server):
    """What pytest-localserver's fixture starts."""

    needs = ("pytest_localserver", "aiosmtpd")

    def start(self) -> None:
        """Accept connections."""
        self._server: Any = importlib.import_module("pytest_localserver.smtp").Server(host=HOST)
        self._server.start()
        self.address = self._server.addr

    def stop(self) -> None:
        """Accept none any more, and end those that are open."""
        self._server.stop()

    @property
    def received(self) -> Any:
        """The messages."""
        return self._server.outbox


SERVERS: dict[str, type[Server]] = {
    OURS: Ours,
    "smtpd": Smtpd,
    "aiosmtpd": Aiosmtpd,
    "smtpdfix": Smtpdfix,
    "pytest-localserver": PytestLocalserver,
}
#: Those that are measured with STARTTLS and AUTH.
SECURE: dict[str, type[Server]] = {OURS: SecureOurs, "aiosmtpd": SecureAiosmtpd}


def is_installed(server: type[Server]) -> bool:
    """Tell whether a server can run here."""
    return all(importlib.util.find_spec(name) for name in server.needs)
