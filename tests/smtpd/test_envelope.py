"""Envelopes: what the next hop can take of them, and what a relay offers."""

from __future__ import annotations

import pytest

from pytest_smtpd.protocol import extensions
from pytest_smtpd.protocol.events import Refusal
from pytest_smtpd.protocol.grammar import Parameters, parse_parameters
from pytest_smtpd.protocol.state import Settings
from pytest_smtpd.smtpd.envelope import EVERYTHING, Envelope, Features, Recipient, offer

NOTHING = Features()
ALL = Features(EVERYTHING.keywords | {"SIZE"})


def mail(parameters: str, *keywords: str, mailfrom: str = "ada@example.org") -> str:
    """Return the MAIL command for a next hop that offers these, or the reply that refuses."""
    try:
        return Envelope(mailfrom, parse_parameters(parameters)).mail_command(Features(frozenset(keywords)), 10)
    except Refusal as refusal:
        return str(refusal.reply)


@pytest.mark.parametrize(
    ("parameters", "keywords", "command"),
    [
        ("", "", "MAIL FROM:<ada@example.org>"),
        ("SIZE=90", "SIZE", "MAIL FROM:<ada@example.org> SIZE=100"),
        ("SIZE=90", "", "MAIL FROM:<ada@example.org>"),
        ("BODY=8BITMIME SMTPUTF8", "8BITMIME SMTPUTF8", "MAIL FROM:<ada@example.org> BODY=8BITMIME SMTPUTF8"),
        ("SMTPUTF8 BODY=7BIT SMTPUTF8", "8BITMIME SMTPUTF8", "MAIL FROM:<ada@example.org> SMTPUTF8 BODY=7BIT"),
        ("BODY=7BIT", "", "MAIL FROM:<ada@example.org>"),
        ("BODY=8bitmime", "", "554 5.6.3 "),
        ("SMTPUTF8", "8BITMIME", "550 5.6.7 "),
        ("BODY=BINARYMIME", "8BITMIME CHUNKING", "554 5.6.3 "),
        ("BODY=BINARYMIME", "8BITMIME BINARYMIME", "554 5.6.3 "),
        ("BODY=BINARYMIME", "8BITMIME CHUNKING BINARYMIME", "MAIL FROM:<ada@example.org> BODY=BINARYMIME"),
        ("RET=HDRS ENVID=x+2By", "DSN", "MAIL FROM:<ada@example.org> RET=HDRS ENVID=x+2By"),
        ("RET=HDRS", "8BITMIME", "555 5.5.4 "),
    ],
)
def test_parameters_of_mail(parameters: str, keywords: str, command: str) -> None:
    """Parameters are passed on where the next hop knows them; what changes the message's meaning is refused else."""
    got = mail(parameters, *keywords.split())
    assert got == command if command.startswith("MAIL") else got.startswith(command)


@pytest.mark.parametrize(
    ("parameters", "keywords", "command"),
    [
        ("", "", "RCPT TO:<bob@example.org>"),
        ("NOTIFY=NEVER", "DSN", "RCPT TO:<bob@example.org> NOTIFY=NEVER"),
        ("NOTIFY=NEVER", "", "555 5.5.4 Error: the next hop does not offer DSN"),
    ],
)
def test_parameters_of_rcpt(parameters: str, keywords: str, command: str) -> None:
    """Parameters of recipients are passed on, or the recipient is refused."""
    try:
        got = Envelope("").rcpt_command(
            Recipient("bob@example.org", parse_parameters(parameters)), Features(frozenset(keywords.split()))
        )
    except Refusal as refusal:
        got = str(refusal.reply)
    assert got == command


def test_addresses_beyond_ascii() -> None:
    """An address beyond ASCII is passed on where SMTPUTF8 was declared and is offered, and refused where it wasn't."""
    assert mail("SMTPUTF8", "SMTPUTF8", mailfrom="adá@example.org") == "MAIL FROM:<adá@example.org> SMTPUTF8"
    assert mail("", "SMTPUTF8", mailfrom="adá@example.org").startswith("553 5.6.7 ")
    with pytest.raises(Refusal):
        Envelope("").rcpt_command(Recipient("bób@example.org"), ALL)
    declared = Envelope("", (("SMTPUTF8", None),))
    assert declared.rcpt_command(Recipient("bób@example.org"), ALL) == "RCPT TO:<bób@example.org>"


def keywords_offered(limit: int, features: Features) -> dict[str, str]:
    """Return what EHLO tells the clients of a server with this limit before a next hop like this."""
    settings = offer(Settings(data_size_limit=limit, extensions=extensions.ALL), features, 10)
    lines = settings.ehlo_replies[False].text.splitlines()[1:]
    return dict((*line.split(), "")[:2] for line in lines)  # type: ignore[misc] # always two


@pytest.mark.parametrize(
    ("limit", "of_next_hop", "offered"),
    [(100, 0, "100"), (100, 50, "40"), (30, 50, "30"), (0, 50, "40"), (0, 0, None), (100, 5, "1")],
)
def test_the_smaller_limit_is_offered(limit: int, of_next_hop: int, offered: str | None) -> None:
    """SIZE is the smaller one of the two limits, and leaves room for what a relay adds."""
    assert keywords_offered(limit, Features(frozenset({"SIZE"}), of_next_hop)).get("SIZE") == offered


def test_only_what_the_next_hop_offers_is_offered() -> None:
    """What the next hop has to do is offered where it does it, with what that needs; the rest always."""
    assert list(keywords_offered(1, NOTHING)) == ["SIZE", "PIPELINING", "HELP"]
    assert keywords_offered(1, ALL).keys() == {extension.keyword for extension in extensions.ALL}
    some = Features(frozenset({"DSN", "SMTPUTF8", "BINARYMIME", "ETRN"}))
    assert list(keywords_offered(1, some)) == ["SIZE", "PIPELINING", "DSN", "HELP"]


NOTIFY: Parameters = (("NOTIFY", "NEVER"),)
ENVELOPE = Envelope(
    "ada@example.org",
    (("SIZE", "1"), ("RET", "HDRS")),
    (Recipient("bob@example.org", NOTIFY), Recipient("carol@example.org")),
)


def test_an_envelope_that_is_not_changed() -> None:
    """Whoever gives the same addresses has changed nothing."""
    assert ENVELOPE.addressed("ada@example.org", ["bob@example.org", "carol@example.org"]) is ENVELOPE


def test_an_envelope_that_is_changed() -> None:
    """Recipients that remain keep their parameters, those that come have none."""
    changed = ENVELOPE.addressed("", ["dan@example.org", "bob@example.org"])
    assert changed == Envelope(
        "", ENVELOPE.parameters, (Recipient("dan@example.org"), Recipient("bob@example.org", NOTIFY))
    )
    assert ENVELOPE.addressed("", "dan@example.org").recipients == (Recipient("dan@example.org"),)


@pytest.mark.parametrize("mailbox", ["a b@example.org", "x@example.org>\r\nDATA", "<x@example.org>"])
def test_an_envelope_with_what_is_no_address(mailbox: str) -> None:
    """What could be more than an address is a ValueError."""
    with pytest.raises(ValueError, match="is no mailbox"):
        ENVELOPE.addressed(mailbox, [])
    with pytest.raises(ValueError, match="is no mailbox"):
        list(ENVELOPE.addressed("", [mailbox]).recipients)


def test_parameters_can_be_left_out() -> None:
    """Parameters are left out of the whole envelope."""
    assert ENVELOPE.without("SIZE", "NOTIFY") == Envelope(
        "ada@example.org", (("RET", "HDRS"),), (Recipient("bob@example.org"), Recipient("carol@example.org"))
    )
