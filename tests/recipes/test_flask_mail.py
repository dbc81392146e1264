"""Flask-Mail."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tools import find_module

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_smtpd import RecordingServer

SUITE = """
from flask_mail import Message


def test_mail(smtpd_server, app):
    with app.app_context():
        message = Message("Hello", sender="ada@example.org", recipients=["bob@example.org"], body="How are you?")
        app.extensions["mail"].send(message)
    smtpd_server.assert_received(subject="Hello", mailfrom="ada@example.org", rcpttos=["bob@example.org"])
"""


@pytest.fixture(autouse=True)
def _flask_mail() -> None:
    """Hold that Flask-Mail is there."""
    find_module("flask_mail")


def test_the_recipe_works(run_recipe: Callable[[str, str], None]) -> None:
    """With the configuration shown, `mail.send` sends to the server, in spite of TESTING."""
    run_recipe("import flask_mail", SUITE)


def test_tls_and_login(server: RecordingServer, check: Callable[[], None]) -> None:
    """With the configuration for TLS and login, the message comes encrypted and from the user."""
    flask, flask_mail = find_module("flask"), find_module("flask_mail")
    app = flask.Flask("shop")
    app.config.update(server.environ("MAIL_", host="MAIL_SERVER"))
    app.config["MAIL_USE_SSL" if server.implicit_tls else "MAIL_USE_TLS"] = True
    with app.app_context():
        flask_mail.Mail(app).send_message(
            "Hello", sender="ada@example.org", recipients=["bob@example.org"], body="How are you?"
        )
    check()
