"""What a server that runs by itself does with messages: prints them, saves them, and keeps none of them."""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import os
import sys
from pathlib import Path
from typing import Any

from pytest_smtpd.testing.message import Message
from pytest_smtpd.testing.outbox import Outbox

#: A message that has all that is looked at in messages.
SAMPLE = Message(
    peer=("127.0.0.1", 25),
    mailfrom="",
    rcpttos=["ada@example.org"],
    data=b"Subject: =?iso-8859-1?q?a?=\r\nTo: Ada <ada@example.org>\r\nMIME-Version: 1.0\r\n"
    b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: text/html; charset=iso-8859-1\r\n"
    b"Content-Transfer-Encoding: quoted-printable\r\n\r\n<a href=3D'http://a'>\r\n--b\r\n"
    b"Content-Type: text/plain; name=a\r\nContent-Disposition: attachment\r\n\r\na\r\n--b--\r\n",
)


class Printer(Outbox):
    """Takes messages as an outbox does, prints each, and forgets it.

    What can't be written ends the program, before its client has been told that the message is accepted.
    """

    def __init__(self, *, as_json: bool, directory: Path | None) -> None:
        super().__init__()
        self._as_json = as_json
        self._directory = directory
        self._numbers = itertools.count(1)

    def add(self, message: Message, generation: Any) -> Any:  # noqa: ARG002 - nothing is ever cleared
        """Print a message, and save it."""
        try:
            path = self._save(message.data) if self._directory else None
            _write(self.format(message, path))
        except OSError as error:
            sys.exit(f"pytest-smtpd: a message can't be written: {error}")
        return True

    def format(self, message: Message, path: Path | None) -> bytes:
        """Return the line that is printed."""
        if self._as_json:
            return json.dumps(describe(message, path)).encode() + b"\n"
        text = f"{message} ({path})\n" if path else f"{message}\n"
        return text.encode(sys.stdout.encoding or "utf-8", "backslashreplace")

    def _save(self, data: bytes) -> Path:
        """Write a file that was not there, with all of the content at once; return its path."""
        directory = self._directory or Path()
        unfinished = directory / f".{os.getpid()}.part"
        try:
            unfinished.write_bytes(data)
            while True:
                path = directory / f"{next(self._numbers):06}.eml"
                with contextlib.suppress(FileExistsError):
                    path.hardlink_to(unfinished)  # unlike a renaming, this replaces nothing
                    return path
        finally:
            unfinished.unlink(missing_ok=True)


def describe(message: Message, path: Path | None = None) -> dict[str, Any]:
    """Return what a script in any language may want to know of a message, as JSON has it."""
    headers: dict[str, list[str]] = {}
    for name, value in message.email.items():
        headers.setdefault(_clean(name.lower()), []).append(_clean(str(value)))
    tls, auth = message.tls, message.auth
    return {
        "peer": list(message.peer),
        "helo": message.helo,
        "esmtp": message.esmtp,
        "mailfrom": message.mailfrom,
        "rcpttos": message.rcpttos,
        "mail_options": message.mail_options,
        "rcpt_options": message.rcpt_options,
        "subject": _clean(message.subject),
        "headers": headers,
        "text": _clean(message.text),
        "html": _clean(message.html),
        "attachments": [
            {"name": _clean(part.name), "type": _clean(part.type), "size": len(part.content)}
            for part in message.attachments
        ],
        "data": base64.b64encode(message.data).decode(),
        "tls": tls and {"version": tls.version, "cipher": tls.cipher, "server_name": tls.server_name},
        # No password: lines like this end up in logs.
        "auth": auth and {"mechanism": auth.mechanism, "user": auth.user, "authzid": auth.authzid},
        "received_at": message.received_at.isoformat(),
        "file": path and str(path),
    }


def _clean(text: str) -> str:
    """Replace what is no Unicode, such as octets that email could not decode: JSON parsers refuse it."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _write(line: bytes) -> None:
    # Past Python's buffer, which at the end would wait for whoever does not read.
    while line:
        line = line[os.write(sys.stdout.fileno(), line) :]
