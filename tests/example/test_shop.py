"""What a test suite looks like that uses the plugin: it needs nothing but pytest and the plugin."""

from __future__ import annotations

import re
import smtplib
from typing import TYPE_CHECKING

import pytest
from example.shop import Shop

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_smtpd import RecordingServer


@pytest.fixture(scope="session")
def shop(smtpd_server: RecordingServer) -> Shop:
    """Return the application under test, which is told once where the mail server is."""
    return Shop(smtp=smtpd_server.address)


def test_customers_get_a_confirmation(shop: Shop, smtpd_server: RecordingServer) -> None:
    """An order is confirmed to its customer, with a link to it."""
    shop.confirm(4711, "ada@example.net")

    message = smtpd_server.assert_received(rcpttos=["ada@example.net"], subject="Your order №4711")
    assert message.mailfrom == "shop@example.org"
    assert message.links == ["https://shop.example.org/orders/4711"]


def test_the_accountant_gets_a_blind_copy(shop: Shop, smtpd_server: RecordingServer) -> None:
    """A blind copy goes to somebody whom no header names."""
    shop.confirm(4712, "ada@example.net", copies_to=("books@example.org",))

    assert smtpd_server.assert_received(body="order").bcc == ["books@example.org"]


def test_the_invoice_is_attached(shop: Shop, smtpd_server: RecordingServer) -> None:
    """The invoice arrives as it was made, octet by octet."""
    shop.confirm(4713, "ada@example.net", invoice=b"%PDF-1.7 \x00\xff\r\n.\r\n")

    [invoice] = smtpd_server.assert_received(attachment="invoice.pdf").attachments
    assert invoice.type == "application/pdf"
    assert invoice.content == b"%PDF-1.7 \x00\xff\r\n.\r\n"


def test_mail_from_another_thread(shop: Shop, smtpd_server: RecordingServer) -> None:
    """Mail is received whoever sends it."""
    threads = [shop.confirm_later(order, f"customer{order}@example.net") for order in range(10)]
    for thread in threads:
        thread.join()

    smtpd_server.assert_received(count=10, subject=re.compile(r"№\d$"))


def test_nobody_else_gets_mail(shop: Shop, smtpd_server: RecordingServer) -> None:
    """Each test begins with an empty mailbox."""
    shop.confirm(4714, "ada@example.net")

    assert len(smtpd_server.messages) == 1
    smtpd_server.assert_not_received(rcpttos="eve@example.net")


def test_a_server_that_refuses_large_mail(make_smtpd_server: Callable[..., RecordingServer]) -> None:
    """The shop reports it when the server refuses a message."""
    small = make_smtpd_server(data_size_limit=1000)
    with pytest.raises(smtplib.SMTPSenderRefused) as refusal:
        Shop(small.address).confirm(4715, "ada@example.net", invoice=bytes(2000))

    assert refusal.value.smtp_code == 552
    small.assert_not_received()
