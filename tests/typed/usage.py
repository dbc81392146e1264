"""Code as users write it, for type checkers: mypy and pyright must find in it exactly the errors that are noted.

A comment that ignores an error which isn't there is an error itself; each of these lines is a mistake that a
type checker has to find.
"""

from __future__ import annotations

from datetime import datetime
from email.message import EmailMessage
from typing import Any, assert_type

import pytest

from pytest_smtpd import (
    AbortedTransaction,
    Attachment,
    Dialogue,
    Identity,
    LateMailWarning,
    Lint,
    Message,
    Messages,
    Outbox,
    RecordingServer,
    Refusal,
    Reply,
    ServerFactory,
    TLSFailure,
    TLSInfo,
    smtpd,
)


def server_itself(server: RecordingServer) -> None:
    """Where it is, and what it holds."""
    assert_type(server.address, tuple[str, int])
    assert_type(server.host, str)
    assert_type(server.port, int)
    assert_type(server.url, str)
    assert_type(server.cafile, str)
    assert_type(server.messages, Outbox)
    assert_type(server.dialogues, list[Dialogue])
    assert_type(server.aborted, list[AbortedTransaction])
    assert_type(server.tls_failures, list[TLSFailure])
    assert_type(server.take_errors(), list[BaseException])
    with server as entered:
        assert_type(entered, RecordingServer)
    with server.options(require_auth=True):
        pass
    with server.options(require_aut=True):  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
        pass


def sequences(messages: Outbox) -> None:
    """Take a message by its index, lists by slices."""
    assert_type(messages[0], Message)
    assert_type(messages[1:], list[Message])
    assert_type([message for message in messages], list[Message])  # noqa: C416 - its type is the question
    assert_type(len(messages), int)
    assert_type(messages.where(subject="Hello"), Messages)
    assert_type(messages.where(subject="Hello").where(tls=None).one(), Message)
    assert_type(messages.first(), Message)
    assert_type(messages.last(), Message)
    messages[0] = messages[1]  # type: ignore[index]  # pyright: ignore[reportIndexIssue]


async def assertions(server: RecordingServer, amount: int) -> None:
    """One message comes back, or with a count a list."""
    assert_type(server.assert_received(subject="Hello"), Message)
    assert_type(server.assert_received(timeout=2, subject="Hello"), Message)
    assert_type(server.assert_received(None), Message)
    assert_type(server.assert_received(2), list[Message])
    assert_type(server.assert_received(count=amount, timeout=2, rcpttos="ada@example.org"), list[Message])
    assert_type(server.wait_for(), list[Message])
    assert_type(server.wait_for(3, timeout=1.5, subject="Hello"), list[Message])
    assert_type(await server.wait_for_async(subject="Hello"), list[Message])
    with server.capture() as captured:
        assert_type(captured, Messages)
    server.assert_not_received(within=0.5, subject="Hello")
    server.assert_nothing_received()
    server.wait_until_idle(timeout=1)

    server.assert_received("Hello")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
    server.assert_received(count=2).subject  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]  # noqa: B018
    server.wait_for("Hello")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    server.assert_not_received("Hello")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def message_itself(message: Message) -> None:
    """Read the attributes of a message."""
    assert_type(message.mailfrom, str)
    assert_type(message.rcpttos, list[str])
    assert_type(message.data, bytes)
    assert_type(message.mail_options, list[str])
    assert_type(message.rcpt_options, list[list[str]])
    assert_type(message.esmtp, bool)
    assert_type(message.received_at, datetime)
    assert_type(message.email, EmailMessage)
    assert_type(message.subject, str)
    assert_type(message.text, str)
    assert_type(message.attachments, list[Attachment])
    assert_type(message.lints, tuple[Lint, ...])
    assert_type(message.tls, TLSInfo | None)
    assert_type(message.auth, Identity | None)
    message.subject = "Goodbye"  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
    message.auth.user  # type: ignore[union-attr]  # pyright: ignore[reportOptionalMemberAccess]  # noqa: B018
    message.sender  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]  # noqa: B018


class PickyServer(RecordingServer):
    """A server that answers messages."""

    def process_message(
        self, peer: tuple[Any, ...], mailfrom: str, rcpttos: list[str], data: bytes, **kwargs: Any
    ) -> str | Reply | None:
        """Refuse some."""
        if not mailfrom:
            raise Refusal(Reply(550, "No bounces, please", "5.7.1"))
        return "554 5.7.1 Spam" if b"spam" in data else None

    @property
    def refused(self) -> int:
        """What only this class has."""
        return 0


class OtherServer(RecordingServer):
    """A server with a constructor of its own."""

    def __init__(self, greeting: str) -> None:
        super().__init__(hostname=greeting)


def factories(make_smtpd_server: ServerFactory) -> None:
    """`make_smtpd_server` knows the options, and returns a server of the class that it is given."""
    assert_type(make_smtpd_server(), RecordingServer)
    assert_type(make_smtpd_server(host="::1", port=2525, users={"ada": "secret"}, tls="starttls"), RecordingServer)
    assert_type(make_smtpd_server(PickyServer), PickyServer)
    assert_type(make_smtpd_server(PickyServer, hostname="mx.example.org").refused, int)
    assert_type(make_smtpd_server(OtherServer, "mx.example.org"), OtherServer)

    make_smtpd_server(hostnam="x")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    make_smtpd_server(tls="ssl")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    make_smtpd_server(OtherServer, hostname="x")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    make_smtpd_server(str)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]


def servers() -> None:
    """Constructors know their options."""
    RecordingServer("127.0.0.1", 0, max_recipients=None, timeout=2, auth_mechanisms=["PLAIN"], users=lambda _user: None)
    RecordingServer(hide=["SIZE"], protocol="lmtp", directory={"staff": ["ada@example.org"]})
    RecordingServer(protocol="smtps")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    RecordingServer(strict="yes")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    RecordingServer(size_limit=3)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    assert_type(smtpd.DebuggingServer(("127.0.0.1", 0), None).start(), smtpd.DebuggingServer)


@pytest.mark.filterwarnings("error::pytest_smtpd.LateMailWarning")
def warnings() -> type[Warning]:
    """Late mail is a warning."""
    return LateMailWarning
