"""A server that says what a test has written down, also what no server should say."""

from __future__ import annotations

import contextlib
import queue
import socket
import socketserver
import threading
from typing import Self

#: What is answered where nothing else is said. A lone dot stands for the content.
USUAL = {
    "CONNECT": b"220 scripted ESMTP\r\n",
    "EHLO": b"250-scripted\r\n250-8BITMIME\r\n250 SIZE 1000\r\n",
    "DATA": b"354 Go on\r\n",
    "QUIT": b"221 Bye\r\n",
}


class _Handler(socketserver.StreamRequestHandler):
    server: ScriptedServer

    def handle(self) -> None:
        """Answer each command until the script, or the client, ends it."""
        said = self.server.begin(self.request)
        with contextlib.suppress(OSError):
            going_on = self._say("CONNECT") is not None
            while going_on and (line := self.rfile.readline()):
                said.append(line.decode().rstrip())
                verb = line.split()[0].decode().upper()
                reply = self._say(verb)
                if verb == "DATA" and reply and reply.startswith(b"354"):
                    reply = self._take_content()
                going_on = reply is not None and not reply.startswith((b"421", b"221"))

    def _take_content(self) -> bytes | None:
        lines = [b""]
        while lines[-1] != b".\r\n" and (line := self.rfile.readline()):
            lines.append(line)
        self.server.contents.append(b"".join(lines))
        return self._say(".")

    def _say(self, verb: str) -> bytes | None:
        reply = self.server.answer(verb)
        self.wfile.write(reply or b"")
        return reply


class ScriptedServer(socketserver.ThreadingTCPServer):
    """Answers by a script from verbs to replies: octets as they are; b"" to say nothing, None to hang up.

    A reply that begins with 421 ends the connection. `script` may be changed at any time.
    """

    request_queue_size = 100

    def __init__(self, **script: bytes | None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.script: dict[str, bytes | None] = dict(script)
        #: Like `script`, but each answer is given once.
        self.once: dict[str, bytes | None] = {}
        #: What was answered, "CONNECT" and "." among it, for tests to wait for.
        self.answered: queue.Queue[str] = queue.Queue()
        #: What the clients said, by connection.
        self.said: list[list[str]] = []
        #: What came behind each 354, with its end.
        self.contents: list[bytes] = []
        self._open: list[socket.socket] = []
        self._thread = threading.Thread(target=lambda: self.serve_forever(poll_interval=0.01))

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens."""
        host, port = self.socket.getsockname()
        return host, port

    def begin(self, connection: socket.socket) -> list[str]:
        """Take notice of a client; return where what it says is to be kept."""
        self._open.append(connection)
        self.said.append([])
        return self.said[-1]

    def answer(self, verb: str) -> bytes | None:
        """Return the answer to a command."""
        self.answered.put(verb)
        if verb in self.once:
            return self.once.pop(verb)
        return self.script.get(verb, USUAL.get(verb, b"250 OK\r\n"))

    def await_answer(self, verb: str) -> None:
        """Wait until this is being answered."""
        while self.answered.get(timeout=10) != verb:
            pass

    def hang_up(self) -> None:
        """Close all connections, unasked."""
        for connection in self._open:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def verbs(self, connection: int = -1) -> list[str]:
        """Return the verbs that a client said."""
        return [line.split()[0].upper() for line in self.said[connection]]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.hang_up()
        self.shutdown()
        self._thread.join()
        self.server_close()
