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

import contextlib
import itertools
from importlib import import_module
from typing import TYPE_CHECKING, Any

from pytest_smtpd.network.loop import Loop

from .channel import SMTPChannel
from .debugging import DebuggingServer
from .server import SMTPServer, socket_map

if TYPE_CHECKING:
    from .mailman import MailmanProxy
    from .proxy import PureProxy

__all__ = ["DebuggingServer", "MailmanProxy", "PureProxy", "SMTPChannel", "SMTPServer", "loop"]

_PROXIES = {"MailmanProxy": "mailman", "PureProxy": "proxy"}


def __getattr__(name: str) -> Any:
    # Only who uses a proxy needs smtplib, which imports more than all of this package.
    if name not in _PROXIES:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    value = globals()[name] = getattr(import_module(f".{_PROXIES[name]}", __name__), name)
    return value


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
        with contextlib.ExitStack() as stack:
            for server in list(servers.values()):
                stack.callback(server.stop)


def _run_common_loop(servers: list[SMTPServer], timeout: float) -> None:
    """Run the one loop that serves all of these once."""
    common = next((server.loop for server in servers if server.loop), None) or Loop()
    # While it is held, other threads that close servers wait for `run_once` to do it.
    with common.held() as is_open:
        for server in servers if is_open else ():
            server.attach(common)
        if not common.is_listening:  # another thread has closed them all
            common.close()
        common.run_once(timeout)
