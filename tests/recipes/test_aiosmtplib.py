"""The package aiosmtplib."""

from __future__ import annotations

import asyncio
from email.message import EmailMessage
from typing import TYPE_CHECKING

import pytest
from tools import find_module

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_smtpd import RecordingServer

SUITE = """
import asyncio
from email.message import EmailMessage


def test_mail(smtpd_server, send):
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "ada@example.org", "bob@example.org", "Hello"
    asyncio.run(send(message))
    smtpd_server.assert_received(subject="Hello", mailfrom="ada@example.org", rcpttos=["bob@example.org"])
"""


@pytest.fixture(autouse=True)
def _aiosmtplib() -> None:
    """Hold that aiosmtplib is there."""
    find_module("aiosmtplib")


def test_the_recipe_works(run_recipe: Callable[[str, str], None]) -> None:
    """With host and port, `aiosmtplib.send` sends to the server."""
    run_recipe("import aiosmtplib", SUITE)


def test_tls_and_login(server: RecordingServer, check: Callable[[], None]) -> None:
    """With the arguments for TLS and login, the message comes encrypted and from the user."""
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "ada@example.org", "bob@example.org", "Hello"
    message.set_content("How are you?")
    sending = find_module("aiosmtplib").send(
        message,
        hostname=server.host,
        port=server.port,
        username="ada",
        password=server.environ()["SMTP_PASSWORD"],
        use_tls=server.implicit_tls,
        cert_bundle=server.cafile,
    )
    asyncio.run(sending)
    check()
