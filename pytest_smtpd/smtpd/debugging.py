"""DebuggingServer: shows what it receives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .server import SMTPServer

if TYPE_CHECKING:
    from pytest_smtpd.network.connection import Address


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
        """Print the message in one go, with the client's address as the last header."""
        text = data if isinstance(data, str) else data.decode("utf-8", "backslashreplace")
        lines = ["---------- MESSAGE FOLLOWS ----------"]
        # SIZE, which nearly every client sends, says nothing that the message itself doesn't.
        if options := [option for option in kwargs.get("mail_options", ()) if not option.startswith("SIZE=")]:
            lines.append(f"mail options: {options}")
        if kwargs.get("rcpt_options"):
            lines.append(f"rcpt options: {kwargs['rcpt_options']}\n")
        headers, end, body = text.partition("\n\n")
        lines += [headers, f"X-Peer: {peer[0]}"]
        if end:
            lines += ["", body]
        lines.append("------------ END MESSAGE ------------")
        print("\n".join(lines), flush=True)  # noqa: T201
