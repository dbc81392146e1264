"""What a failed test is told: how messages differ, and what has happened on its servers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_smtpd.testing.comparing import compare_mailboxes, compare_messages
from pytest_smtpd.testing.message import Message
from pytest_smtpd.testing.shown import show

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import TypeGuard

    import pytest

    from pytest_smtpd.testing.recording import RecordingServer


def explain_difference(servers: list[RecordingServer], left: object, right: object) -> list[str] | None:
    """Say how two messages differ, or the recipients of a message and others; None: they are neither."""
    if isinstance(left, Message) and isinstance(right, Message):
        return [f"Message {left} == Message {right}", *compare_messages(left, right)]
    if _is_mailboxes(left) and _is_mailboxes(right):
        return _explain_rcpttos(servers, left, right)
    return None


def _is_mailboxes(value: object) -> TypeGuard[list[str]]:
    return isinstance(value, list) and all(isinstance(mailbox, str) for mailbox in value)


def _explain_rcpttos(servers: list[RecordingServer], left: list[str], right: list[str]) -> list[str] | None:
    """Say how the lists differ if one of them is the very `rcpttos` of a message that one of the servers has."""
    known = {id(message.rcpttos) for server in servers for message in server.messages}
    if not known & {id(left), id(right)}:
        return None
    differences = compare_mailboxes(left, right) if id(left) in known else compare_mailboxes(right, left)
    return [f"{show(left)} == {show(right)}", *differences]


def tell(report: pytest.TestReport, server: RecordingServer, failure: BaseException | None, *, is_known: bool) -> None:
    """Tell a test what happened on a server, if it has failed; `is_known`: also if that is nothing.

    What the server's hooks have raised is reported with it, and is not to fail another test.
    """
    _forget(server, [failure, *getattr(failure, "exceptions", ())])
    told = server.errors[:]
    if report.failed and (server.is_used or is_known):
        _add_section(report, f"SMTP server {server.public_url}", server.report())
    _forget(server, told)


def _forget(server: RecordingServer, errors: Iterable[BaseException | None]) -> None:
    for error in errors:
        if error in server.errors:
            server.errors.remove(error)


def _add_section(report: pytest.TestReport, title: str, text: str) -> None:
    """Add it to the very representation of the failure, so that JUnit's XML has it, too."""
    longrepr: Any = report.longrepr
    if hasattr(longrepr, "addsection"):
        longrepr.addsection(title, text)
    else:  # of pytest.fail(…, pytrace=False), of a doctest, of a fixture that is not there
        report.longrepr = f"{longrepr}\n\n{title}\n{text}"
