"""MailmanProxy: who gets what, with a server of LMTP in Mailman's place."""

from __future__ import annotations

import contextlib
import smtplib
import threading
from typing import TYPE_CHECKING, Any

import pytest
from scripted import ScriptedServer
from support import RawClient

from pytest_smtpd import RecordingServer, Reply, smtpd
from pytest_smtpd.smtpd.mailman import MAX_RECEIPTS, Receipts
from pytest_smtpd.testing.channel import RecordingChannel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ADA, BOB = "ada@example.org", "bob@example.org"
ANTS, BEES = "ants@lists.example.org", "bees@lists.example.org"
CONTENT = b"Subject: hello\r\n\r\nworld\r\n"
RELAYED = b"Subject: hello\r\nX-Peer: 127.0.0.1\r\n\r\nworld\r\n"


@pytest.fixture(autouse=True)
def _nothing_left_behind() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


class MailmanChannel(RecordingChannel):
    """Knows some recipients."""

    def smtp_RCPT(self, arg: str | None) -> None:  # noqa: N802 - a command's name
        """Answer as Mailman does."""
        server = self.smtp_server
        assert isinstance(server, Mailman)
        server.asked.append(str(arg))
        if "@lists.example.org" in str(arg).lower():
            super().smtp_RCPT(arg)
        else:
            self.push(server.refusal)


class Mailman(RecordingServer):
    """Takes mail for lists.example.org over LMTP, and offers what Mailman does."""

    channel_class = MailmanChannel

    def __init__(self, **options: Any) -> None:
        self.asked: list[str] = []
        self.refusal = "550 Requested action not taken: mailbox unavailable"
        self.answers: list[str] = []
        hide = ["SMTPUTF8", "PIPELINING", "ENHANCEDSTATUSCODES", "CHUNKING", "BINARYMIME", "DSN", "HELP"]
        super().__init__(**{"protocol": "lmtp", "hide": hide, **options})

    def process_message(self, *args: Any, **kwargs: Any) -> str | None:
        """Give the next answer."""
        return self.answers.pop(0) if self.answers else None


class Upstream(RecordingServer):
    """Gives answers, too."""

    def __init__(self, **options: Any) -> None:
        self.answers: list[str] = []
        super().__init__(**options)

    def process_message(self, *args: Any, **kwargs: Any) -> str | None:
        """Give the next answer."""
        return self.answers.pop(0) if self.answers else None


class Site:
    """A MailmanProxy between its two servers."""

    def __init__(self, stack: contextlib.ExitStack, **options: Any) -> None:
        self.mailman = stack.enter_context(Mailman())
        self.upstream = stack.enter_context(Upstream())
        cls = options.pop("cls", smtpd.MailmanProxy)
        self.proxy = stack.enter_context(
            cls(("127.0.0.1", 0), self.upstream.address, map={}, **{"lmtp": self.mailman.address, **options})
        )

    def connect(self) -> smtplib.SMTP:
        """Return a client of the proxy."""
        return smtplib.SMTP(*self.proxy.socket.getsockname())

    def send(self, *rcpttos: str, content: bytes = CONTENT) -> dict[str, tuple[int, bytes]]:
        """Send a message through the proxy."""
        with self.connect() as client:
            return client.sendmail(ADA, rcpttos, content)

    @property
    def received(self) -> tuple[list[list[str]], list[list[str]]]:
        """To whom the messages are that Mailman and the upstream have."""
        return [each.rcpttos for each in self.mailman.messages], [each.rcpttos for each in self.upstream.messages]


@pytest.fixture
def make_site() -> Iterator[Callable[..., Site]]:
    """Return a function that makes a site, with options for the proxy."""
    with contextlib.ExitStack() as stack:
        yield lambda **options: Site(stack, **options)


@pytest.fixture
def site(make_site: Callable[..., Site]) -> Site:
    """Return a site."""
    return make_site()


def test_mail_for_lists_and_others(site: Site) -> None:
    """Mailman gets one copy for each of its addresses, the upstream one for all others."""
    assert site.send(ANTS, BOB, BEES, ADA) == {}
    assert site.received == ([[ANTS], [BEES]], [[BOB, ADA]])
    for message in (*site.mailman.messages, *site.upstream.messages):
        assert (message.mailfrom, message.data) == (ADA, RELAYED)


@pytest.mark.parametrize("rcpttos", [[ANTS], [BOB]])
def test_mail_for_one_place(site: Site, rcpttos: list[str]) -> None:
    """What is for one place only goes there only, and each connection is used again."""
    for _ in range(2):
        assert site.send(*rcpttos) == {}
    assert sum(map(len, site.received)) == 2
    assert len(site.upstream.dialogues) == 1
    assert len(site.mailman.dialogues) == 1


def test_mailman_is_asked_by_address_alone(site: Site) -> None:
    """The question is for the null path and without parameters: what the message is does not matter for it."""
    with site.connect() as client:
        client.sendmail(ADA, [ANTS, BOB], CONTENT, ["BODY=8BITMIME"], ["NOTIFY=NEVER"])
    assert site.mailman.asked == [f"TO:<{ANTS}>", f"TO:<{BOB}>", f"TO:<{ANTS}>"]
    assert site.mailman.messages.one().mail_options == ["SIZE=105", "BODY=8BITMIME"]
    assert site.upstream.messages.one().rcpt_options == [["NOTIFY=NEVER"]]


@pytest.mark.parametrize("refusal", ["450 4.2.0 Wait", "421 Leaving", "354 What?"])
def test_mailman_does_not_know(site: Site, refusal: str) -> None:
    """Where Mailman neither takes nor refuses a recipient, that is 451, and nothing goes astray."""
    site.mailman.refusal = refusal
    refused = site.send(ANTS, BOB) if refusal.startswith("450") else {}
    if not refused:
        with pytest.raises(smtplib.SMTPRecipientsRefused) as caught:
            site.send(BOB)
        refused = caught.value.recipients
    assert refused[BOB][0] == 451
    assert site.received[1] == []


def test_mailman_is_away(site: Site) -> None:
    """While Mailman is away nobody knows whose a recipient is: all are 451, until it is back."""
    site.mailman.stop()
    with pytest.raises(smtplib.SMTPRecipientsRefused) as caught:
        site.send(ANTS, BOB)
    assert [code for code, _ in caught.value.recipients.values()] == [451, 451]
    assert site.received == ([], [])
    site.mailman.start()
    assert site.send(ANTS, BOB) == {}


def test_mailman_refuses_the_question(make_site: Callable[..., Site]) -> None:
    """A server that refuses MAIL has said nothing about the recipient: 451."""
    site = make_site()
    with RecordingServer(require_auth=True, protocol="lmtp") as other:
        strange = make_site(lmtp=other.address)
        with pytest.raises(smtplib.SMTPRecipientsRefused, match=r"451.*Authentication required"):
            strange.send(BOB)
    assert site.received == strange.received == ([], [])


def test_the_upstream_is_away(site: Site) -> None:
    """While the upstream is away lists go on; its recipients are 451."""
    site.upstream.stop()
    refused = site.send(ANTS, BOB)
    assert refused[BOB][0] == 451
    assert site.received == ([[ANTS]], [])


def test_the_upstream_refuses_the_sender(site: Site) -> None:
    """What the upstream says to MAIL is the answer to its recipients, and lists are none of its business."""
    with (
        ScriptedServer(MAIL=b"550 Not you\r\n") as upstream,
        smtpd.MailmanProxy(("127.0.0.1", 0), upstream.address, map={}, lmtp=site.mailman.address) as proxy,
        smtplib.SMTP(*proxy.socket.getsockname()) as client,
    ):
        assert client.sendmail(ADA, [ANTS, BOB, ADA], CONTENT) == {BOB: (550, b"Not you"), ADA: (550, b"Not you")}
    assert site.received == ([[ANTS]], [])


def test_lists_need_no_permission(make_site: Callable[..., Site]) -> None:
    """Restrictions are about what is relayed: lists are at home here."""
    site = make_site(relay_domains=["example.net"])
    assert site.send(ANTS, BOB) == {BOB: (550, b"5.7.1 Error: relaying denied")}
    assert site.received == ([[ANTS]], [])


def test_addresses_beyond_ascii(site: Site) -> None:
    """Mailman has no address beyond ASCII: it is not asked, and the upstream is."""
    with site.connect() as client:
        client.ehlo()
        client.command_encoding = "utf-8"
        client.docmd("MAIL FROM:<adá@example.org> SMTPUTF8")
        assert client.docmd("RCPT TO:<bób@example.org>")[0] == 250
        assert client.rcpt(BOB)[0] == 250
        # Without SMTPUTF8 a list can't take the message (RFC 6531 3.5).
        assert client.rcpt(ANTS) == (550, b"5.6.7 Error: the next hop does not offer SMTPUTF8")
        assert client.data(CONTENT)[0] == 250
    assert site.mailman.asked == [f"TO:<{BOB}>", f"TO:<{ANTS}>"]
    assert site.received == ([], [["bób@example.org", BOB]])


# is_list.


def test_a_function_may_tell_lists(make_site: Callable[..., Site]) -> None:
    """`is_list` tells whose a recipient is, and Mailman is asked about its own only: its refusal is final then."""
    site = make_site(is_list=lambda address: "list" in address)
    assert site.send(BOB, ANTS, "list@example.org")["list@example.org"][0] == 550
    assert site.received == ([[ANTS]], [[BOB]])
    assert all(BOB not in each for each in site.mailman.asked)
    site.mailman.stop()
    assert site.send(BOB, ANTS)[ANTS][0] == 451
    assert site.received[1] == [[BOB], [BOB]]


def test_a_function_that_fails(make_site: Callable[..., Site]) -> None:
    """An exception in `is_list` is 451, and raised where the proxy is stopped."""
    site = make_site(is_list=lambda _address: bool(1 / 0))
    with pytest.raises(smtplib.SMTPRecipientsRefused, match="451"):
        site.send(ANTS)
    with pytest.raises(ZeroDivisionError):
        site.proxy.stop()


def test_a_function_that_can_not_ask(make_site: Callable[..., Site]) -> None:
    """An OSError in `is_list` means that nobody can tell just now: 451, and no error of the function's."""

    def is_list(_address: str) -> bool:
        msg = "Mailman answered 503"
        raise ConnectionError(msg)

    site = make_site(is_list=is_list)
    with pytest.raises(smtplib.SMTPRecipientsRefused, match=r"451, b'4\.4\.1 Error: .*Mailman answered 503"):
        site.send(ANTS)
    site.proxy.stop()
    assert site.received == ([], [])


def test_what_is_no_function() -> None:
    """A list of lists is no function: TypeError."""
    with pytest.raises(TypeError, match="is_list is a function"):
        smtpd.MailmanProxy(("127.0.0.1", 0), ("127.0.0.1", 25), is_list=[ANTS])  # type: ignore[arg-type] # the point


def test_options() -> None:
    """MailmanProxy has the options of PureProxy, and needs an address of Mailman's that is one."""
    with pytest.raises(ValueError, match="not 'mailman'"):
        smtpd.MailmanProxy(("127.0.0.1", 0), ("127.0.0.1", 25), lmtp="mailman")  # type: ignore[arg-type] # the point
    with pytest.raises(ValueError, match="open relay"):
        smtpd.MailmanProxy(("0.0.0.0", 0), ("127.0.0.1", 25), map={})  # noqa: S104 - the point
    proxy = smtpd.MailmanProxy(("127.0.0.1", 0), ("127.0.0.1", 25), 100, map={}, max_received=3)
    proxy.close()
    assert (proxy.data_size_limit, proxy.max_received) == (100, 3)


# Mixed outcomes.


def answer(site: Site, *rcpttos: str, content: bytes = CONTENT) -> int:
    """Send a message and return the code of the reply to its content."""
    try:
        site.send(*rcpttos, content=content)
    except smtplib.SMTPDataError as error:
        return error.smtp_code
    return 250


def test_mailman_refuses_the_content(site: Site) -> None:
    """The first refusal is the answer, and nobody behind it gets the message."""
    site.mailman.answers = ["501 Message has defects"]
    assert answer(site, ANTS, BEES, BOB) == 501
    assert site.received == ([], [])


def test_a_single_refusal_is_the_answer(site: Site) -> None:
    """What is for one place only is answered by that one."""
    site.mailman.answers = ["552 Too much"]
    site.upstream.answers = ["554 Spam"]
    assert answer(site, ANTS) == 552
    assert answer(site, BOB) == 554


def test_nobody_gets_a_message_twice(site: Site) -> None:
    """When a later one of several can't take the message now, the client sends it again, and only who lacks it gets it."""
    site.upstream.answers = ["451 Not now", "452 Not yet"]
    assert answer(site, ANTS, BEES, BOB) == 451
    assert site.received == ([[ANTS], [BEES]], [])
    assert answer(site, ANTS, BEES, BOB) == 452
    assert answer(site, BEES, BOB, ANTS) == 250
    assert site.received == ([[ANTS], [BEES]], [[BOB]])
    # Whoever sends it once more means it.
    assert answer(site, ANTS, BOB) == 250
    assert site.received == ([[ANTS], [BEES], [ANTS]], [[BOB], [BOB]])


def test_another_message_is_another_message(site: Site) -> None:
    """Who has one message has not got another one, nor one from somebody else."""
    site.upstream.answers = ["451 Not now"]
    assert answer(site, ANTS, BOB) == 451
    assert answer(site, ANTS, BOB, content=b"other\r\n") == 250
    assert site.received == ([[ANTS], [ANTS]], [[BOB]])


def test_a_refusal_for_good(site: Site) -> None:
    """When a later one refuses for good the client hears it, and who sends the message again sends it to all."""
    site.upstream.answers = ["554 Spam"]
    assert answer(site, ANTS, BOB) == 554
    assert answer(site, ANTS, BOB) == 250
    assert site.received == ([[ANTS], [ANTS]], [[BOB]])


def test_all_have_it_already(site: Site) -> None:
    """A client that sends the message again to those alone who have it is told that they do."""
    site.upstream.answers = ["451 Not now"]
    assert answer(site, ANTS, BEES, BOB) == 451
    assert answer(site, ANTS, BEES) == 250
    assert site.received == ([[ANTS], [BEES]], [])


def test_receipts_are_bounded() -> None:
    """Only so many messages are remembered, and the oldest are forgotten first."""
    receipts = Receipts()
    keys = [receipts.key("", str(number).encode()) for number in range(MAX_RECEIPTS + 1)]
    for key in keys:
        receipts.keep(key, {ANTS})
    assert receipts.taken(keys[0]) == set()
    assert receipts.taken(keys[1]) == receipts.taken(keys[-1]) == {ANTS}
    receipts.keep(keys[1], set())
    assert receipts.taken(keys[1]) == set()


# Subclasses and sessions.


def test_an_override_that_adds_a_list(make_site: Callable[..., Site]) -> None:
    """Whom a subclass adds is looked up as well; if that fails, nobody gets the message."""

    class Copying(smtpd.MailmanProxy):
        def process_message(
            self, peer: Any, mailfrom: str, rcpttos: list[str], data: Any, **kwargs: Any
        ) -> str | Reply | None:
            return super().process_message(peer, mailfrom, [*rcpttos, ANTS], data, **kwargs)

    site = make_site(cls=Copying)
    assert site.send(BOB) == {}
    assert site.received == ([[ANTS]], [[BOB]])
    with RawClient(site.proxy.socket.getsockname()) as client:
        client.read_reply()
        for command in ("EHLO x", f"MAIL FROM:<{ADA}>", f"RCPT TO:<{BOB}>", "DATA"):
            client.ask(command)
        site.mailman.stop()
        assert client.ask(".")[:3] == "451"
    assert site.received == ([[ANTS]], [[BOB]])


def test_an_override_that_leaves_nobody(make_site: Callable[..., Site]) -> None:
    """A message that a subclass hands on to nobody is refused by the upstream, not lost."""

    class ToNobody(smtpd.MailmanProxy):
        def process_message(
            self, peer: Any, mailfrom: str, rcpttos: list[str], data: Any, **kwargs: Any
        ) -> str | Reply | None:
            return super().process_message(peer, mailfrom, [], data, **kwargs)

    assert answer(make_site(cls=ToNobody), BOB) >= 500


def test_a_session_that_is_reset(site: Site) -> None:
    """RSET, EHLO and the next transaction end what was open on both sides."""
    with site.connect() as client:
        client.ehlo()
        for end in ("RSET", "EHLO x", "RSET"):
            client.docmd(f"MAIL FROM:<{ADA}>")
            assert client.rcpt(ANTS)[0] == 250
            if end == "EHLO x":
                assert client.rcpt(BOB)[0] == 250
            assert client.docmd(end)[0] == 250
            said = [line.text for line in site.mailman.dialogues[0].lines if line.speaker == "C"]
            assert said[-1] == "RSET"
        assert client.sendmail(ADA, [BOB], CONTENT) == {}
    assert site.received == ([], [[BOB]])


@pytest.mark.parametrize("count", [1, 2])
def test_a_client_that_goes_away(site: Site, count: int) -> None:
    """A client that goes in the midst of a transaction leaves nothing behind on either side."""
    with RawClient(site.proxy.socket.getsockname()) as client:
        client.read_reply()
        for command in ("EHLO x", f"MAIL FROM:<{ADA}>", f"RCPT TO:<{ANTS}>", f"RCPT TO:<{BOB}>")[: 2 + count]:
            assert client.ask(command).startswith("250")
    site.proxy.stop()
    assert site.received == ([], [])
