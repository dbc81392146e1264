"""Django's e-mail."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import pytest
from tools import find_module

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_smtpd import RecordingServer

BACKEND = "django.core.mail.backends.smtp.EmailBackend"

SUITE = """
from django.conf import settings
from django.core.mail import send_mail

settings.configure()


def test_mail(smtpd_server, {fixture}):
    send_mail("Hello", "How are you?", "ada@example.org", ["bob@example.org"])
    smtpd_server.assert_received(subject="Hello", mailfrom="ada@example.org", rcpttos=["bob@example.org"])
"""


@pytest.fixture
def mailers() -> bool:
    """Whether this Django has MAILERS; so Django is there, and configured."""
    django = find_module("django")
    settings = importlib.import_module("django.conf").settings
    if not settings.configured:
        settings.configure()
    return bool(django.VERSION >= (6, 1))


def test_the_recipe_works(run_recipe: Callable[[str, str], None], *, mailers: bool) -> None:
    """With the fixture for the version that is installed, `send_mail` sends to the server."""
    run_recipe("override_settings", SUITE.format(fixture="mailers" if mailers else "email_settings"))


def test_tls_and_login(
    server: RecordingServer, check: Callable[[], None], monkeypatch: pytest.MonkeyPatch, *, mailers: bool
) -> None:
    """With the settings for TLS and login, the message comes encrypted and from the user."""
    tls = "ssl" if server.implicit_tls else "tls"
    values: dict[str, Any]
    if mailers:
        options = {"host": server.host, "port": server.port, "username": "ada", "password": "secret"}
        values = {"MAILERS": {"default": {"BACKEND": BACKEND, "OPTIONS": options | {f"use_{tls}": True}}}}
    else:
        values = {"EMAIL_BACKEND": BACKEND, "EMAIL_HOST": server.host, "EMAIL_PORT": server.port}
        values |= {"EMAIL_HOST_USER": "ada", "EMAIL_HOST_PASSWORD": "secret", f"EMAIL_USE_{tls.upper()}": True}
    monkeypatch.setenv("SSL_CERT_FILE", server.cafile)
    with importlib.import_module("django.test").override_settings(**values):
        send_mail = importlib.import_module("django.core.mail").send_mail
        send_mail("Hello", "How are you?", "ada@example.org", ["bob@example.org"])
    check()
