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

from pytest_smtpd.network.loop import Loop

from .channel import SMTPChannel
from .debugging import DebuggingServer
from .server import SMTPServer, socket_map

__all__ = ["DebuggingServer", "SMTPChannel", "SMTPServer", "loop"]


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
            _common_loop(servers).run_once(timeout)
    except KeyboardInterrupt:
        with contextlib.ExitStack() as stack:
            for server in servers.values():
                stack.callback(server.stop)


def _common_loop(servers: dict[int, SMTPServer]) -> Loop:
    """Return the one loop that serves all of these."""
    common = next((server._loop for server in servers.values() if server._loop), None) or Loop()  # noqa: SLF001
    for server in servers.values():
        if server._loop is None:  # noqa: SLF001
            server._attach(common)  # noqa: SLF001
    return common
