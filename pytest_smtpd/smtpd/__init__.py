"""The classic smtpd module, gone from Python 3.12: SMTP servers to subclass.

    from pytest_smtpd import smtpd

    class CustomSMTPServer(smtpd.SMTPServer):
        def process_message(self, peer, mailfrom, rcpttos, data, **kwargs):
            print("Message addressed from:", mailfrom)

    server = CustomSMTPServer(("127.0.0.1", 1025), None)
    smtpd.loop()

A server can also run in a thread of its own: `with server: ...`, or `start()` and `stop()`. All hooks are
called in the thread that serves, one at a time.
"""

from __future__ import annotations

import itertools
from importlib import import_module
from typing import TYPE_CHECKING, Any

from pytest_smtpd.network.loop import Loop
from pytest_smtpd.protocol.state import DATA_SIZE_DEFAULT as DATA_SIZE_DEFAULT

from .channel import SMTPChannel
from .debug import DEVNULL
from .debug import Devnull as Devnull
from .server import SMTPServer, socket_map
from .service import raise_together

if TYPE_CHECKING:
    from .debugging import DebuggingServer
    from .mailman import MailmanProxy
    from .proxy import PureProxy

__all__ = ["DebuggingServer", "MailmanProxy", "PureProxy", "SMTPChannel", "SMTPServer", "close_all", "loop"]

#: Where the servers are that are imported when they are asked for: proxies need smtplib, which imports more than all
#: of this package.
_SERVERS = {"DebuggingServer": "debugging", "MailmanProxy": "mailman", "PureProxy": "proxy"}

# What code that used smtpd finds here beside __all__.
__version__ = "ESMTP pytest-smtpd-server"
COMMASPACE, EMPTYSTRING, NEWLINE = ", ", "", "\n"
#: Where the dialogues of all sessions are written to while it is another stream, such as sys.stderr.
DEBUGSTREAM: Any = DEVNULL


def loop(
    timeout: float = 30.0,
    use_poll: bool = False,  # noqa: ARG001
    map: dict[int, SMTPServer] | None = None,
    count: int | None = None,
) -> None:
    """Serve all open servers in this thread until all are closed, or until Ctrl-C, which closes them.

    As asyncore.loop did: `map` has the servers (None: all that were made without a map), `count` is how
    often to wait for something to happen, at most `timeout` seconds each time.
    """
    servers = socket_map if map is None else map
    try:
        for _ in itertools.repeat(None) if count is None else range(count):
            if not servers:
                return
            _run_common_loop(list(servers.values()), timeout)
    except KeyboardInterrupt:
        close_all(servers)


def close_all(map: dict[int, SMTPServer] | None = None, ignore_all: bool = False) -> None:
    """Close all servers that `loop` serves, as asyncore.close_all did; with `ignore_all`, whatever they raise.

    `map` is as for `loop`. What hooks have raised is raised here: the exception, or a group of several.
    """
    servers = socket_map if map is None else map
    errors: list[BaseException] = []
    for server in list(servers.values()):
        try:
            server.close()
        except Exception as error:  # noqa: BLE001 - of a hook: all are closed
            errors.append(error)
        errors += server.take_errors()
    if not ignore_all:
        raise_together(errors, "the servers")


def __getattr__(name: str) -> Any:
    if name in _SERVERS:
        value = globals()[name] = getattr(import_module(f".{_SERVERS[name]}", __name__), name)
        return value
    if name in {"asyncore", "asynchat"}:
        msg = f"there is no {name} here: smtpd.loop() replaces asyncore.loop(), smtpd.close_all() asyncore.close_all()"
        raise AttributeError(msg)
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)


def _run_common_loop(servers: list[SMTPServer], timeout: float) -> None:
    """Run the one loop that serves all of these once."""
    common = next((loop for server in servers if (loop := server.common_loop)), None) or Loop()
    # While it is held, other threads that close servers wait for `run_once` to do it.
    with common.held() as is_open:
        for server in servers if is_open else ():
            server.attach(common)
        if not common.is_listening:  # another thread has closed them all
            common.close()
        common.run_once(timeout)
