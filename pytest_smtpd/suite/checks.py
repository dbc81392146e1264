"""What makes a test fail, or warn, that has done nothing wrong itself: its servers' hooks, their rules, late mail."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from pytest_smtpd.testing.recording import LateMailWarning, RecordingServer

from .configuration import MARKER, fail

if TYPE_CHECKING:
    import pytest


def servers_among(objects: list[object]) -> list[RecordingServer]:
    """Return those that are servers, each once."""
    return list(dict.fromkeys([server for server in objects if isinstance(server, RecordingServer)]))


def raise_errors(servers: list[RecordingServer]) -> None:
    """Raise what the hooks of servers have raised; it is forgotten when it is reported."""
    __tracebackhide__ = True
    errors = [error for server in servers for error in server.errors]
    if len(errors) == 1:
        raise errors[0]
    if errors:
        msg = "several hooks of SMTP servers have failed"
        raise BaseExceptionGroup(msg, errors)


def check_rules(servers: list[RecordingServer], session_server: RecordingServer | None) -> None:
    """Fail the test that has given rules for nothing: it has not tested what it says."""
    for server in servers:
        if not server.allow_unused_rules:
            try:
                server.assert_rules_applied()
            except AssertionError as error:
                place = MARKER if server is session_server else "where this server is made"
                fail(f"{error}\n{place}", "allow_unused_rules=True lets the test pass")


def fail_for_stopped() -> NoReturn:
    """Fail the test that has left the session's server stopped: what it wants can be had otherwise."""
    hint = "use smtpd_server.down() for a break, and make_smtpd_server for a server to stop"
    fail("this test has left smtpd_server stopped", hint)


def warn_of_late_mail(item: pytest.Item, server: RecordingServer) -> None:
    """Warn of mail that an earlier test's clients have sent, and that is in no mailbox."""
    if late := server.take_late():
        mails = "".join(f"\n  {mail}" for mail in late)
        item.warn(LateMailWarning(f"late mail came in {item.nodeid}, and is in no mailbox:{mails}"))
