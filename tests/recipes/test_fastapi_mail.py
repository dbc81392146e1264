"""The package fastapi-mail."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from tools import find_module

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_smtpd import RecordingServer

SUITE = """
import asyncio

import pytest
from fastapi_mail import MessageSchema, MessageType


def test_mail(smtpd_server, mail):
    message = MessageSchema(
        subject="Hello", recipients=["bob@example.org"], body="How are you?", subtype=MessageType.plain
    )
    asyncio.run(mail.send_message(message))
    smtpd_server.assert_received(subject="Hello", mailfrom="noreply@example.org", rcpttos=["bob@example.org"])
    with pytest.raises(ValueError, match="special-use or reserved"):
        MessageSchema(subject="Hello", recipients=["bob@example.test"], body="", subtype=MessageType.plain)
"""


@pytest.fixture(autouse=True)
def _fastapi_mail() -> None:
    """Hold that fastapi-mail is there."""
    find_module("fastapi_mail")


def test_the_recipe_works(run_recipe: Callable[[str, str], None]) -> None:
    """With the configuration shown, `send_message` sends to the server, if not to recipients in .test."""
    run_recipe("import fastapi_mail", SUITE)


def test_tls_and_login(server: RecordingServer, check: Callable[[], None]) -> None:
    """With the configuration for TLS and login, the message comes encrypted and from the user."""
    fastapi_mail = find_module("fastapi_mail")
    config = fastapi_mail.ConnectionConfig(
        MAIL_SERVER=server.host,
        MAIL_PORT=server.port,
        MAIL_FROM="ada@example.org",
        MAIL_USERNAME="ada",
        MAIL_PASSWORD=server.environ()["SMTP_PASSWORD"],
        MAIL_STARTTLS=not server.implicit_tls,
        MAIL_SSL_TLS=server.implicit_tls,
        CERT_BUNDLE=server.cafile,
    )
    message = fastapi_mail.MessageSchema(
        subject="Hello",
        recipients=["bob@example.org"],
        body="How are you?",
        subtype=fastapi_mail.MessageType.plain,
    )
    asyncio.run(fastapi_mail.FastMail(config).send_message(message))
    check()
