"""Rules: at which stage, for which messages and how often they apply, and what tests learn of them."""

from __future__ import annotations

import smtplib
from typing import TYPE_CHECKING, Any

import pytest
from support import RawClient

from pytest_smtpd import RecordingServer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_smtpd import Message
    from pytest_smtpd.testing.faults import Rule


@pytest.fixture
def server() -> Iterator[RecordingServer]:
    """Return a running server."""
    with RecordingServer(auth_mechanisms=["PLAIN"], allow_unused_rules=True) as server:
        yield server


def send(
    server: RecordingServer, *rcpttos: str, mailfrom: str = "ada@example.org", subject: str = "Hello"
) -> dict[str, tuple[int, bytes]]:
    """Send a message as an application does; return the recipients that were refused."""
    with smtplib.SMTP(*server.address) as client:
        to = rcpttos or ("bob@example.org",)
        return client.sendmail(mailfrom, to, f"Subject: {subject}\r\n\r\nHow are you?\r\n")


# Stages.


@pytest.mark.parametrize("stage", ["CONNECT", "EHLO", "MAIL", "RCPT", "DATA", "CONTENT"])
def test_a_rule_applies_to_its_stage(server: RecordingServer, stage: str) -> None:
    """Each step of sending a message is a stage, at which a rule has it fail."""
    rules = [server.on(stage).reject(), server.on("HELO").reject()]
    with pytest.raises(smtplib.SMTPException):
        send(server)
    assert [rule.hits for rule in rules] == [1, stage == "EHLO"]
    server.assert_not_received()


def test_a_stage_is_any_verb_in_any_case(server: RecordingServer) -> None:
    """A verb that no standard knows is a stage as well, and case makes no difference."""
    server.on("xyzzy").reply(250, "Nothing happens")
    with RawClient(server.address) as client:
        client.read_reply()
        assert client.ask("XYZZY") == "250 2.0.0 Nothing happens"
        assert client.ask("PLUGH")[:3] == "500"


def test_any_is_every_stage(server: RecordingServer) -> None:
    """A rule for ANY applies to greeting, commands, lines that are none, and content alike."""
    rule = server.on("ANY").delay(0.001)
    with RawClient(server.address) as client:
        client.read_reply()
        for line in ("EHLO client.example", "", "MAIL FROM:<ada@example.org>", "RCPT TO:<bob@example.org>", "DATA"):
            client.ask(line)
        client.ask("Subject: Hello\r\n\r\n.")
    assert rule.hits == 7


def test_the_first_rule_that_fits_applies(server: RecordingServer) -> None:
    """Of several rules the first one applies, and the next one once its window is over."""
    first = server.on("RCPT", times=1).defer("4.2.1 First")
    second = server.on("RCPT").reject("5.1.1 Second")
    with RawClient(server.address) as client:
        client.read_reply()
        client.ask("EHLO client.example")
        client.ask("MAIL FROM:<ada@example.org>")
        assert [client.ask("RCPT TO:<bob@example.org>") for _ in range(3)] == [
            "450 4.2.1 First",
            "550 5.1.1 Second",
            "550 5.1.1 Second",
        ]
    assert (first.hits, first.remaining, second.hits, second.remaining) == (1, 0, 2, None)


def test_each_rule_counts_all_events_that_match(server: RecordingServer) -> None:
    """What an earlier rule applies to is counted by the others: the second event is the second one for all."""
    server.on("NOOP", nth=1).reject("5.0.0 First")
    server.on("NOOP", nth=2).reject("5.0.0 Second")
    server.on("NOOP", after=2, times=1).reject("5.0.0 Third")
    with RawClient(server.address) as client:
        client.read_reply()
        replies = [client.ask("NOOP") for _ in range(4)]
    assert [reply[4:] for reply in replies] == ["5.0.0 First", "5.0.0 Second", "5.0.0 Third", "2.0.0 OK"]


def test_a_rule_added_in_mid_session_applies_to_what_follows(server: RecordingServer) -> None:
    """A session that is open obeys a new rule with its next command."""
    with RawClient(server.address) as client:
        client.read_reply()
        assert client.ask("EHLO client.example")[:3] == "250"
        server.on("MAIL").reject()
        assert client.ask("MAIL FROM:<ada@example.org>")[:3] == "550"


@pytest.mark.parametrize("stage", ["", "RCPT TO", "content ", 5, None])
def test_what_is_no_stage_is_refused(server: RecordingServer, stage: Any) -> None:
    """A stage is one word, and the error says which words there are."""
    with pytest.raises(ValueError, match="a stage is a verb such as 'RCPT', or 'CONNECT'"):
        server.on(stage)


@pytest.mark.parametrize(("stage", "meant"), [("RCTP", "RCPT"), ("contents", "CONTENT"), ("CONECT", "CONNECT")])
def test_a_misspelt_stage_is_refused(server: RecordingServer, stage: str, meant: str) -> None:
    """What is nearly a stage is taken for a typing error, and the error says what may be meant."""
    with pytest.raises(ValueError, match=f"there is no stage '{stage.upper()}': did you mean '{meant}'"):
        server.on(stage)
    server.on("XRCPT")  # anybody's


# Criteria.


def test_a_recipient_is_the_one_that_is_asked_for(server: RecordingServer) -> None:
    """At RCPT, `rcpttos` is this command's recipient, not those before."""
    server.on("RCPT", rcpttos="bob@example.org").reject("5.1.1 No such user")
    refused = send(server, "bob@example.org", "eve@example.org", "bob@EXAMPLE.org")
    assert refused.keys() == {"bob@example.org", "bob@EXAMPLE.org"}
    assert server.messages.one().rcpttos == ["eve@example.org"]


def test_behind_rcpt_all_recipients_are_known(server: RecordingServer) -> None:
    """At DATA and CONTENT, `rcpttos` has all recipients that were accepted."""
    rule = server.on("DATA", rcpttos=["bob@example.org", "eve@example.org"]).reject()
    send(server, "bob@example.org")
    with pytest.raises(smtplib.SMTPDataError):
        send(server, "bob@example.org", "eve@example.org")
    assert rule.hits == 1


@pytest.mark.parametrize(
    ("stage", "criteria"),
    [
        ("MAIL", {"mailfrom": "ada@example.org"}),
        ("MAIL", {"helo": "client.example", "esmtp": True}),
        ("MAIL", {"mail_options": ["SIZE=100"]}),
        ("MAIL", {"peer": lambda peer: peer[0] == "127.0.0.1"}),
        ("RCPT", {"mailfrom": "ada@example.org", "rcpt_options": [["NOTIFY=NEVER"]]}),
        ("DATA", {"mailfrom": "ada@example.org"}),
        ("CONTENT", {"subject": "Hello", "body": "How are you?", "headers": {"X-Tag": "a"}, "size": 42}),
        ("EHLO", {"helo": "client.example"}),
        ("ANY", {"subject": "Hello"}),
    ],
)
def test_a_rule_applies_to_what_meets_its_criteria(
    server: RecordingServer, stage: str, criteria: dict[str, Any]
) -> None:
    """All that is known of a message at a stage is a criterion, this command's words included."""
    other = server.on(stage, **{**criteria, "helo": "other.example"}).reject()
    rule = server.on(stage, **criteria).delay(0.001)
    with smtplib.SMTP(*server.address, local_hostname="client.example") as client:
        client.ehlo()
        client.mail("ada@example.org", ["SIZE=100"])
        client.rcpt("bob@example.org", ["NOTIFY=NEVER"])
        client.data("Subject: Hello\r\nX-Tag: a\r\n\r\nHow are you?\r\n")
    assert (rule.hits, other.hits) == (1, 0)


def test_who_has_authenticated_is_a_criterion(server: RecordingServer) -> None:
    """`auth` is who the client has logged in as, and None before."""
    server.on("MAIL", auth=None).reject("5.7.1 Log in")
    with smtplib.SMTP(*server.address) as client:
        client.ehlo()
        assert client.mail("ada@example.org")[0] == 550
        client.login("ada", "secret")
        assert client.mail("ada@example.org")[0] == 250


def test_a_function_is_asked_with_the_message(server: RecordingServer) -> None:
    """A function decides by all that is known of the message."""

    def is_loud(message: Message) -> bool:
        return message.subject.isupper()

    rule = server.on("CONTENT", is_loud, mailfrom="ada@example.org").reject()
    send(server, subject="Hello")
    send(server, subject="HELLO", mailfrom="bob@example.org")
    with pytest.raises(smtplib.SMTPDataError):
        send(server, subject="HELLO")
    assert str(rule) == "on('CONTENT', is_loud, mailfrom='ada@example.org').reject()"


@pytest.mark.parametrize("stage", ["RCPT", "CONTENT"])
def test_a_function_that_fails_reaches_the_test(stage: str) -> None:
    """What a function raises is answered with 451, and raised once, where the server is stopped."""

    def fail(message: Message) -> bool:
        raise ZeroDivisionError(message.mailfrom)

    server = RecordingServer().start()
    rule = server.on(stage, fail).reject()
    with pytest.raises(smtplib.SMTPException, match="451"):
        send(server)
    with pytest.raises(ZeroDivisionError, match=r"ada@example.org"):
        server.stop()
    assert rule.hits == 0


def test_a_function_that_fails_amid_content_is_not_answered() -> None:
    """In the middle of content no answer is due: the message goes on, and the exception reaches the test."""

    def fail(message: Message) -> bool:
        raise ZeroDivisionError(message.mailfrom)

    server = RecordingServer().start()
    server.on("CONTENT", fail, after_bytes=10).reject()
    send(server)
    assert server.messages.one().subject == "Hello"
    with pytest.raises(ZeroDivisionError):
        server.stop()


@pytest.mark.parametrize(
    ("stage", "criteria", "error"),
    [
        ("RCPT", {"subject": "Hello"}, r"subject: not known at RCPT; match it at on\('CONTENT', …\)"),
        ("DATA", {"size": 5}, r"size: not known at DATA"),
        ("CONNECT", {"helo": "x", "tls": None}, r"helo: not known at CONNECT; match it at on\('RCPT', …\)"),
        ("MAIL", {"rcpttos": "bob@example.org"}, r"rcpttos: not known at MAIL; match it at on\('RCPT', …\)"),
    ],
)
def test_criteria_that_come_too_early_are_refused(
    server: RecordingServer, stage: str, criteria: dict[str, Any], error: str
) -> None:
    """A criterion that can't be known at a stage would never be met; the error says where it can."""
    with pytest.raises(ValueError, match=error):
        server.on(stage, **criteria)


def test_misspelt_names_are_refused(server: RecordingServer) -> None:
    """A name that is neither of a window nor a criterion is a TypeError, with what may be meant."""
    with pytest.raises(TypeError, match=r"on\(\) takes no tims: did you mean times"):
        server.on("RCPT", tims=2)
    with pytest.raises(TypeError, match="did you mean mailfrom"):
        server.on("RCPT", mailform="ada@example.org")
    with pytest.raises(TypeError, match="match is a function that is asked with a message, not 'bob'"):
        server.on("RCPT", "bob")  # type: ignore[arg-type]  # a typing error is what this is about


@pytest.mark.parametrize(
    ("stage", "after_bytes", "error"),
    [
        ("CONTENT", 0, "after_bytes is a whole number from 1 on, not 0"),
        ("CONTENT", 1.5, "after_bytes is a whole number from 1 on, not 1.5"),
        ("DATA", 100, r"on\('CONTENT', after_bytes=100\), not on\('DATA', …\)"),
    ],
)
def test_after_bytes_counts_octets_of_content(
    server: RecordingServer, stage: str, after_bytes: Any, error: str
) -> None:
    """It is a number, and for CONTENT alone."""
    with pytest.raises(ValueError, match=error):
        server.on(stage, after_bytes=after_bytes)


# What tests learn.


def test_a_rule_knows_its_dialogues(server: RecordingServer) -> None:
    """`dialogues` has each session in which the rule has applied, once, and the dialogue names the rule."""
    rule = server.on("RCPT", times=3).delay(0.001).reject()
    for rcpttos in (["a@example.org", "b@example.org"], ["c@example.org"]):
        with pytest.raises(smtplib.SMTPRecipientsRefused):
            send(server, *rcpttos)
    assert len(rule.dialogues) == 2
    lines = str(rule.dialogues[0]).splitlines()
    begin = lines.index("   (on('RCPT', times=3).delay(0.001).reject())")
    # smtplib writes "to:" since Python 3.13.
    assert lines[begin + 1].replace("to:", "TO:") == "C: RCPT TO:<a@example.org>"
    assert lines[begin + 2] == "S: 550 5.1.1 No such user here"


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        (lambda server: server.on("RCPT", nth=2).defer("4.2.1 Busy"), "on('RCPT', nth=2).defer('4.2.1 Busy')"),
        (
            lambda server: server.on("CONTENT", after_bytes=5, subject="Hi").reply(450).disconnect(),
            "on('CONTENT', after_bytes=5, subject='Hi').reply(450).disconnect()",
        ),
        (
            lambda server: server.on("MAIL", probability=0.5, seed=3).fragment(1, 2).reply(250, "Yes"),
            "on('MAIL', probability=0.5, seed=3).fragment(1, 2).reply(250, 'Yes')",
        ),
        (lambda server: server.on("mail").hold().raw(b"2"), "on('MAIL').hold().raw(b'2')"),
    ],
)
def test_a_rule_reads_as_it_was_written(server: RecordingServer, rule: Any, text: str) -> None:
    """Its text is the code that made it; the seed is there, with which chances come again."""
    assert str(rule(server)) == text


def _line(rule: Rule) -> str:
    return rule.where.rpartition(":")[2]


def test_rules_that_never_applied_are_named(server: RecordingServer) -> None:
    """`assert_rules_applied` names each rule without a hit, with the line where it was given."""
    server.on("MAIL").delay(0.001)
    unused = server.on("RCPT", rcpttos="eve@example.org").reject()
    empty = server.on("DATA")
    server.on("CONTENT", probability=1e-12, seed=1).reject()
    send(server)
    with pytest.raises(AssertionError) as raised:
        server.assert_rules_applied()
    assert str(raised.value).splitlines() == [
        "Rules that have never applied: 2",
        f"  on('RCPT', rcpttos='eve@example.org').reject(): 0 times ({__file__}:{_line(unused)})",
        f"  on('DATA'): it has no action ({__file__}:{_line(empty)})",
    ]
    server.rules.clear()
    server.assert_rules_applied()


def test_failures_name_the_rules(server: RecordingServer) -> None:
    """An assertion that fails, and the report of a failed test, say how often each rule has applied."""
    rule = server.on("RCPT").reject()
    with pytest.raises(smtplib.SMTPRecipientsRefused):
        send(server)
    said = f"Rules: 1\n  on('RCPT').reject(): 1 time ({__file__}:{_line(rule)})"
    with pytest.raises(AssertionError) as raised:
        server.assert_received()
    assert said in str(raised.value)
    assert said in server.report()


def test_a_test_without_rules_does_not_wait_for_the_serving_thread(
    server: RecordingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that is reset has its thread do something only if there were rules or other options."""
    calls: list[object] = []
    monkeypatch.setattr(server, "call", calls.append)
    server.reset("a")
    server.reset("b")
    assert calls == []
    server.on("MAIL").reject()
    server.reset("c")
    assert len(calls) == 1
    server.reset("d", strict=True)
    assert len(calls) == 2


def test_rules_end_with_the_test(server: RecordingServer) -> None:
    """A server that is reset has no rules, also in sessions that go on."""
    server.on("CONTENT", after_bytes=5).disconnect()
    server.on("MAIL", nth=2).reject()
    with RawClient(server.address) as client:
        client.read_reply()
        client.ask("EHLO client.example")
        server.reset()
        assert list(server.rules) == []
        assert len(server.rules) == 0
        for command in ("MAIL FROM:<ada@example.org>", "RCPT TO:<bob@example.org>", "DATA"):
            assert client.ask(command)[0] in "23"
        assert client.ask("Subject: Hello\r\n\r\n.")[:3] == "250"
        assert client.ask("MAIL FROM:<ada@example.org>")[:3] == "250"
