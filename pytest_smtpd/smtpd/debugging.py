"""DebuggingServer: shows what it receives."""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING, Any

from .server import SMTPServer

if TYPE_CHECKING:
    from pytest_smtpd.network.connection import Address

# Held while a message is printed: each server may have a thread of its own.
_printing = threading.Lock()


class DebuggingServer(SMTPServer):
    """Prints each message on standard output, and delivers none."""

    def process_message(
        self,
        peer: Address,
        mailfrom: str,  # noqa: ARG002
        rcpttos: list[str],  # noqa: ARG002
        data: bytes | str,
        **kwargs: Any,
    ) -> None:
        r"""Print the message in one go, with the client's address as the last header.

        What is not UTF-8, or what standard output can't show, is printed escaped: `\xe9`.
        """
        lines = ["---------- MESSAGE FOLLOWS ----------"]
        # SIZE, which nearly every client sends, says nothing that the message itself doesn't.
        if options := [option for option in kwargs.get("mail_options", ()) if not option.startswith("SIZE=")]:
            lines.append(f"mail options: {options}")
        if kwargs.get("rcpt_options"):
            lines.append(f"rcpt options: {kwargs['rcpt_options']}\n")
        text = data if isinstance(data, str) else data.decode("utf-8", "backslashreplace")
        content = text.removesuffix("\n").split("\n") if text else []
        if "" in content:  # where the headers end
            content.insert(content.index(""), f"X-Peer: {peer[0]}")
        _print_whole("\n".join([*lines, *content, "------------ END MESSAGE ------------\n"]))


def _print_whole(text: str) -> None:
    """Print on standard output what it can show, the rest escaped; never into what another thread prints here."""
    encoding = sys.stdout.encoding or "utf-8"  # a StringIO in its place has none
    with _printing:
        sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding))
        sys.stdout.flush()
