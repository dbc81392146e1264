"""The SMTPHandler of logging."""

from __future__ import annotations

import logging
import logging.handlers
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_smtpd import RecordingServer

SUITE = """
def test_mail(smtpd_server, logger):
    logger.error("Out of water")
    message = smtpd_server.assert_received(subject="The shop is on fire", body="Out of water")
    assert (message.mailfrom, message.rcpttos) == ("shop@example.org", ["admin@example.org"])
"""


def test_the_recipe_works(run_recipe: Callable[[str, str], None]) -> None:
    """With the server's address, what is logged is sent to the server."""
    run_recipe("SMTPHandler", SUITE)


@pytest.mark.parametrize("server", ["starttls"], indirect=True)
def test_tls_and_login(server: RecordingServer, check: Callable[[], None]) -> None:
    """With `credentials` and `secure`, the message comes encrypted and from the user."""
    handler = logging.handlers.SMTPHandler(
        server.address, "ada@example.org", ["bob@example.org"], "Hello", credentials=("ada", "secret"), secure=()
    )
    handler.emit(logging.makeLogRecord({"msg": "How are you?"}))
    handler.close()
    check()
