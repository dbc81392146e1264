"""DSN (RFC 3461): what clients may ask for, and how it is read."""

from __future__ import annotations

import string
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from support import FULL, STRICT, converse

from pytest_smtpd.protocol import extensions
from pytest_smtpd.protocol.dsn import MAX_ENVID, MAX_ORCPT
from pytest_smtpd.protocol.grammar import GrammarError, decode_xtext, parse_parameters
from pytest_smtpd.protocol.lints import Lint
from pytest_smtpd.protocol.notifications import NotificationRequest, RecipientNotification, read_request
from pytest_smtpd.protocol.session import NEED_DATA, Session

if TYPE_CHECKING:
    from pytest_smtpd.protocol.state import Settings

EHLO = b"EHLO client.example\r\n"
MAIL = b"MAIL FROM:<ada@example.org>\r\n"

MODES = [pytest.param(FULL, id="default"), pytest.param(STRICT, id="strict")]
HIDDEN = replace(FULL, extensions=extensions.without(["DSN"]))

# xtext (RFC 3461 4)

#: What stands for itself: xchar, any visible ASCII but "+" and "=".
XCHARS = "".join(character for character in string.printable if "!" <= character <= "~" and character not in "+=")


def encode_xtext(text: str) -> str:
    """Encode as a client does, which must encode whatever is no xchar."""
    return "".join(
        chr(octet) if chr(octet) in XCHARS else f"+{octet:02X}" for octet in text.encode("utf-8", "surrogatepass")
    )


@pytest.mark.parametrize(
    ("xtext", "text"),
    [
        pytest.param("", "", id="nothing"),
        pytest.param(XCHARS, XCHARS, id="every xchar"),
        pytest.param("a+2Bb+3Dc", "a+b=c", id="plus and equals"),
        pytest.param("+41+20+42", "A B", id="a space"),
        pytest.param("+2B2B", "+2B", id="once, not twice"),
        pytest.param("jos+C3+A9@x", "jos\u00e9@x", id="UTF-8"),
        pytest.param("jos\u00e9@x", "jos\u00e9@x", id="raw UTF-8"),
        pytest.param("a+FFb", "a\\xffb", id="no UTF-8"),
        pytest.param("jos\u00e9+E9", "jos\u00e9\\xe9", id="raw and no UTF-8"),
        pytest.param("rfc822;Bob@Example.ORG", "rfc822;Bob@Example.ORG", id="case stays"),
    ],
)
def test_xtext_is_decoded(xtext: str, text: str) -> None:
    """A plus and two hexadecimal digits are an octet of UTF-8; octets that are none are shown escaped."""
    assert decode_xtext(xtext) == text


NO_XTEXT = [
    "+",
    "a+",
    "a+2",
    "+2b",
    "+c3",
    "+2G",
    "+ 2",
    "++",
    "+2+B",
    "a=b",
    "=",
    "a b",
    "a\tb",
    "a\0",
    "a\x7f",
    "+\u0662\u0663",
]


@pytest.mark.parametrize("text", NO_XTEXT, ids=ascii)
def test_what_is_no_xtext_is_an_error(text: str) -> None:
    """Digits in lower case, half a hexchar, spaces, control characters and "=" are no xtext."""
    with pytest.raises(GrammarError):
        decode_xtext(text)


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=30))
def test_what_a_client_encodes_is_decoded_to_the_same(text: str) -> None:
    """Any text survives being sent as xtext."""
    assert decode_xtext(encode_xtext(text)) == text


@given(st.text(st.sampled_from("+2BbG3D=; \u00e9\0a"), max_size=8))
def test_any_text_is_xtext_or_an_error(text: str) -> None:
    """Decoding raises nothing but GrammarError."""
    try:
        decoded = decode_xtext(text)
    except GrammarError:
        return
    assert isinstance(decoded, str)


# What may be asked for (RFC 3461 4.1 to 4.4)


def orcpt(octets: int) -> str:
    """Make an original recipient of so many octets."""
    return "rfc822;".ljust(octets, "x")


MAIL_PARAMETERS = [
    ("RET=FULL", "250 2.1.0"),
    ("RET=HDRS", "250 2.1.0"),
    ("ret=hdrs", "250 2.1.0"),
    ("RET=FULL ENVID=QQ314159", "250 2.1.0"),
    ("ENVID=a+2Bb+3D", "250 2.1.0"),
    ("envid=!", "250 2.1.0"),
    ("ENVID=" + "x" * MAX_ENVID, "250 2.1.0"),
    ("RET", "501 5.5.4"),
    ("RET=", "501 5.5.4"),
    ("RET=FOO", "501 5.5.4"),
    ("RET=FULL,HDRS", "501 5.5.4"),
    ("RET=HDR\u017f", "501 5.5.4"),
    ("RET=FULL RET=FULL", "501 5.5.4"),
    ("ENVID", "501 5.5.4"),
    ("ENVID=", "501 5.5.4"),
    ("ENVID=a+2b", "501 5.5.4"),
    ("ENVID=a+", "501 5.5.4"),
    ("ENVID=a=b", "501 5.5.4"),
    ("ENVID=" + "x" * (MAX_ENVID + 1), "501 5.5.4"),
    ("ENVID=" + "+20" * 34, "501 5.5.4"),  # 102 characters as it is sent, 34 decoded
    ("ENVID=a ENVID=b", "501 5.5.4"),
    ("NOTIFY=NEVER", "555 5.5.4"),
    ("ORCPT=rfc822;a@b", "555 5.5.4"),
]

RCPT_PARAMETERS = [
    ("NOTIFY=NEVER", "250 2.1.5"),
    ("NOTIFY=SUCCESS", "250 2.1.5"),
    ("notify=success,Failure,DELAY", "250 2.1.5"),
    ("NOTIFY=DELAY,FAILURE", "250 2.1.5"),
    ("ORCPT=rfc822;Bob@Example.ORG", "250 2.1.5"),
    ("ORCPT=utf-8;jos+C3+A9@x", "250 2.1.5"),
    ("ORCPT=utf-8;jos\u00e9@x", "250 2.1.5"),
    ("ORCPT=x400;/c=us;".replace("=us", "+3Dus"), "250 2.1.5"),
    ("ORCPT=rfc822;a+2Bb+40c NOTIFY=NEVER", "250 2.1.5"),
    (f"ORCPT={orcpt(MAX_ORCPT)}", "250 2.1.5"),
    ("NOTIFY", "501 5.5.4"),
    ("NOTIFY=", "501 5.5.4"),
    ("NOTIFY=ALWAYS", "501 5.5.4"),
    ("NOTIFY=NEVER,SUCCESS", "501 5.5.4"),
    ("NOTIFY=SUCCESS,NEVER", "501 5.5.4"),
    ("NOTIFY=NEVER,NEVER", "501 5.5.4"),
    ("NOTIFY=,SUCCESS", "501 5.5.4"),
    ("NOTIFY=SUCCESS,", "501 5.5.4"),
    ("NOTIFY=SUCCESS,,DELAY", "501 5.5.4"),
    ("NOTIFY=SUCCESS;DELAY", "501 5.5.4"),
    ("NOTIFY=\u017fUCCESS", "501 5.5.4"),
    ("NOTIFY=FA\u0130LURE", "501 5.5.4"),
    ("NOTIFY=DELAY NOTIFY=DELAY", "501 5.5.4"),
    ("ORCPT", "501 5.5.4"),
    ("ORCPT=", "501 5.5.4"),
    ("ORCPT=bob@example.org", "501 5.5.4"),
    ("ORCPT=;bob@example.org", "501 5.5.4"),
    ("ORCPT=rfc822;", "501 5.5.4"),
    ("ORCPT=rfc822;a+4", "501 5.5.4"),
    ("ORCPT=rfc822;a+2b", "501 5.5.4"),
    ("ORCPT=a@b;c", "501 5.5.4"),  # an address type is an atom
    ("ORCPT=(a);c", "501 5.5.4"),
    (f"ORCPT={orcpt(MAX_ORCPT + 1)}", "501 5.5.4"),
    ("ORCPT=rfc822;a@b ORCPT=rfc822;a@b", "501 5.5.4"),
    ("RET=FULL", "555 5.5.4"),
    ("ENVID=a", "555 5.5.4"),
]


def shortened(parameters: str) -> str:
    """Make an id of parameters."""
    return ascii(parameters if len(parameters) < 50 else f"{parameters[:20]}... {len(parameters)}")[1:-1]


@pytest.mark.parametrize("settings", MODES)
@pytest.mark.parametrize(
    ("parameters", "expected"), [pytest.param(*each, id=shortened(each[0])) for each in MAIL_PARAMETERS]
)
def test_parameters_of_mail(parameters: str, expected: str, settings: Settings) -> None:
    """RET and ENVID are each taken once, with a value that RFC 3461 allows; a refused MAIL opens no transaction."""
    mail = f"MAIL FROM:<ada@example.org> {parameters}\r\n".encode()
    after = "250 2.1.5" if expected.startswith("250") else "503 5.5.1"
    dialogue = converse(EHLO, mail, b"RCPT TO:<bob@example.org>\r\n", settings=settings)
    assert (dialogue.codes, dialogue.lints) == (f"250 {expected} {after}", [])


@pytest.mark.parametrize("settings", MODES)
@pytest.mark.parametrize(
    ("parameters", "expected"), [pytest.param(*each, id=shortened(each[0])) for each in RCPT_PARAMETERS]
)
def test_parameters_of_rcpt(parameters: str, expected: str, settings: Settings) -> None:
    """NOTIFY and ORCPT are each taken once, with a value that RFC 3461 allows; a refused RCPT adds nobody."""
    rcpt = f"RCPT TO:<bob@example.org> {parameters}\r\n".encode()
    after = "354" if expected.startswith("250") else "503 5.5.1"
    dialogue = converse(EHLO, MAIL, rcpt, b"DATA\r\n", settings=settings)
    assert (dialogue.codes, dialogue.lints) == (f"250 250 2.1.0 {expected} {after}", [])


@pytest.mark.parametrize(
    ("mail", "rcpt", "expected"),
    [
        (" RET=FULL", "", "250 555 5.5.4 503 5.5.1"),
        (" ENVID=a", "", "250 555 5.5.4 503 5.5.1"),
        ("", " NOTIFY=NEVER", "250 250 2.1.0 555 5.5.4"),
        ("", " ORCPT=rfc822;a@b", "250 250 2.1.0 555 5.5.4"),
    ],
)
def test_where_dsn_is_hidden_its_parameters_are_unknown(mail: str, rcpt: str, expected: str) -> None:
    """A server that does not offer DSN answers 555 to what only DSN brings."""
    client = [f"MAIL FROM:<ada@example.org>{mail}\r\n".encode(), f"RCPT TO:<bob@example.org>{rcpt}\r\n".encode()]
    dialogue = converse(EHLO, *client, settings=HIDDEN)
    assert dialogue.codes == expected
    assert "DSN" not in dialogue.replies[0]


def test_behind_helo_dsn_was_not_offered() -> None:
    """A client that said HELO knows no DSN: its parameters are noted, and refused by a strict server."""
    client = (b"HELO client.example\r\n", b"MAIL FROM:<ada@example.org> RET=FULL\r\n")
    patient = converse(*client)
    assert (patient.codes, patient.lints) == ("250 250 2.1.0", [Lint.PARAMETER_WITHOUT_EHLO])
    assert converse(*client, settings=STRICT).codes == "250 555 5.5.4"


@pytest.mark.parametrize(
    ("command", "octets"),
    [("MAIL FROM:<a@b> RET=HDRS", 512 + 107), ("RCPT TO:<c@d> NOTIFY=NEVER", 512 + 500)],
)
def test_command_lines_are_longer_by_what_dsn_needs(command: str, octets: int) -> None:
    """DSN adds 107 octets to the lines of MAIL and 500 to those of RCPT (RFC 3461 4)."""
    only_dsn = replace(FULL, extensions=tuple(each for each in extensions.ALL if each.keyword == "DSN"))
    fits = command.encode().ljust(octets - 2) + b"\r\n"
    assert [len(fits), only_dsn.line_limit(command[:4])] == [octets, octets]
    for line, code in ((fits, "250"), (fits.replace(b"\r", b" \r"), "500")):
        assert (
            converse(EHLO, b"MAIL FROM:<x@y>\r\n" * (command[0] == "R"), line, settings=only_dsn).replies[-1][:3]
            == code
        )


# How it is read.


def read(mail: str, *rcpts: str) -> NotificationRequest:
    """Read a request out of parameters as they are sent."""
    return read_request(parse_parameters(mail), [parse_parameters(rcpt) for rcpt in rcpts])


@pytest.mark.parametrize(
    ("mail", "request_"),
    [
        ("", NotificationRequest("", "", ())),
        ("RET=FULL", NotificationRequest("FULL", "", ())),
        ("ret=hdrs ENVID=QQ+2B314", NotificationRequest("HDRS", "QQ+314", ())),
        ("SIZE=9 envid=a+20b BODY=8BITMIME", NotificationRequest("", "a b", ())),
    ],
)
def test_requests_for_a_message_are_read(mail: str, request_: NotificationRequest) -> None:
    """RET comes in upper case, ENVID decoded, and what was not given is empty."""
    assert read(mail) == request_


@pytest.mark.parametrize(
    ("rcpt", "notification"),
    [
        ("", RecipientNotification()),
        ("NOTIFY=never", RecipientNotification(("NEVER",))),
        ("NOTIFY=Success,delay", RecipientNotification(("SUCCESS", "DELAY"))),
        ("ORCPT=rfc822;a+2Bb@x", RecipientNotification(original_recipient="rfc822;a+b@x")),
        ("ORCPT=rfc822;a;b NOTIFY=DELAY", RecipientNotification(("DELAY",), "rfc822;a;b")),
        ("ORCPT=a+2Bb;c+2Bd", RecipientNotification(original_recipient="a+2Bb;c+d")),  # the type is no xtext
        ("ORCPT=utf-8;jos\u00e9@x", RecipientNotification(original_recipient="utf-8;jos\u00e9@x")),
    ],
)
def test_requests_for_a_recipient_are_read(rcpt: str, notification: RecipientNotification) -> None:
    """NOTIFY comes as a tuple in upper case, ORCPT with its address decoded."""
    assert read("", rcpt).recipients == (notification,)


def test_each_recipient_has_its_own_request() -> None:
    """There is an item for each recipient in order, also for those that asked for nothing."""
    request = read("RET=FULL", "NOTIFY=NEVER", "", "NOTIFY=DELAY")
    assert [recipient.notify for recipient in request.recipients] == [("NEVER",), (), ("DELAY",)]


def test_a_session_keeps_what_a_request_is_read_from() -> None:
    """The parameters of an envelope that was accepted are those of its recipients, the refused ones left out."""
    session = Session(FULL)
    session.send(session.connect().reply)
    session.receive_data(
        EHLO + b"MAIL FROM:<a@b> RET=HDRS ENVID=x+2By\r\nRCPT TO:<c@d> NOTIFY=NEVER\r\n"
        b"RCPT TO:<e@f> NOTIFY=FOO\r\nRCPT TO:<g@h>\r\nRCPT TO:<i@j> ORCPT=rfc822;k+40l NOTIFY=DELAY\r\n"
    )
    while (event := session.next_event()) is not NEED_DATA:
        session.send(event.reply)
    transaction = session.state.transaction
    assert transaction is not None
    assert read_request(transaction.parameters, transaction.forward_parameters) == NotificationRequest(
        "HDRS",
        "x+y",
        (
            RecipientNotification(("NEVER",)),
            RecipientNotification(),
            RecipientNotification(("DELAY",), "rfc822;k@l"),
        ),
    )


@given(
    st.sampled_from(["RET", "ENVID"]),
    st.sampled_from(["NOTIFY", "ORCPT"]),
    st.none() | st.text(st.sampled_from("+2BFULNEVR,;\u00e9\u017f\u0130="), min_size=1, max_size=9),
)
@hypothesis_settings(deadline=None)
def test_what_is_accepted_can_be_read(mail_keyword: str, rcpt_keyword: str, value: str | None) -> None:
    """Whatever the session accepts, a request is read from it without an error."""
    session = Session(FULL)
    session.send(session.connect().reply)
    given_value = "" if value is None else f"={value}"
    lines = [
        f"MAIL FROM:<a@b> {mail_keyword}{given_value}",
        "MAIL FROM:<a@b>",
        f"RCPT TO:<c@d> {rcpt_keyword}{given_value}",
    ]
    session.receive_data(EHLO + "".join(f"{line}\r\n" for line in lines).encode())
    while (event := session.next_event()) is not NEED_DATA:
        session.send(event.reply)
    transaction = session.state.transaction
    assert transaction is not None
    request = read_request(transaction.parameters, transaction.forward_parameters)
    assert request.ret in {"", "FULL", "HDRS"}
    assert {keyword for each in request.recipients for keyword in each.notify} <= {
        "NEVER",
        "SUCCESS",
        "FAILURE",
        "DELAY",
    }
