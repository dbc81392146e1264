"""AUTH (RFC 4954): every mechanism through a session, its lines, who decides, and what is secret."""

from __future__ import annotations

import base64
import hashlib
import hmac
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from support import split_replies

from pytest_smtpd.protocol import extensions
from pytest_smtpd.protocol.auth import AUTH, MAX_LINE
from pytest_smtpd.protocol.events import Event
from pytest_smtpd.protocol.lints import Lint
from pytest_smtpd.protocol.replies import Reply
from pytest_smtpd.protocol.sasl import MECHANISMS, Identity
from pytest_smtpd.protocol.session import NEED_DATA, Session
from pytest_smtpd.protocol.state import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

EHLO = b"EHLO client.example\r\n"
PASSWORD = "p\u00e4ss word"  # noqa: S105
USERS = {"jos\u00e9": PASSWORD}.get

OFFERING = Settings(
    extensions=extensions.without([], [AUTH]), auth_mechanisms=tuple(MECHANISMS), users=USERS, require_auth=True
)
STRICT = replace(OFFERING, strict=True)
MODES = [pytest.param(OFFERING, id="default"), pytest.param(STRICT, id="strict")]

CONTINUE = Reply(334, "")
SUCCESS = Reply(235, "Welcome")
FAILURE = Reply(535, "No", "5.7.8")
LATER = Reply(454, "Later", "4.7.0")


def b64(octets: bytes) -> bytes:
    """Encode what a client says."""
    return base64.b64encode(octets)


def line(said: bytes) -> bytes:
    """Make a line of an exchange."""
    return b64(said) + b"\r\n"


def greeted(settings: Settings = OFFERING) -> Session:
    """Make a session whose client has said EHLO."""
    session = Session(settings)
    session.send(session.connect().reply)
    pump(session, EHLO)
    return session


def pump(session: Session, octets: bytes, *, split: bool = False) -> list[str]:
    """Give a session octets, if `split` one by one, and the usual answers; return the replies."""
    for segment in [bytes([octet]) for octet in octets] if split else [octets]:
        session.receive_data(segment)
        while (event := session.next_event()) is not NEED_DATA:
            session.send(event.reply)
    return split_replies(session.data_to_send())


def waiting(session: Session, octets: bytes) -> Event:
    """Give a session octets; return the event that then waits for its answer."""
    session.receive_data(octets)
    event = session.next_event()
    assert isinstance(event, Event)
    return event


def code(session: Session, octets: bytes) -> str:
    """Return the code of the only reply to these octets."""
    session.data_to_send()  # that of an earlier reply
    (reply,) = pump(session, octets)
    return reply[:3]


# Every mechanism through a session.


class ScramClient:
    """The client's side of SCRAM-SHA-256 (RFC 5802)."""

    def __init__(self, user: str, password: str, nonce: str = "fyko+d2lbbFgONRv9qkxdawL") -> None:
        self.steps: list[Callable[[bytes], bytes]] = [self.first, self.final, self.verify]
        self._password = password
        self._bare = f"n={user},r={nonce}"
        self._signature = b""

    def first(self, _challenge: bytes) -> bytes:
        """Say who wants to authenticate."""
        return f"n,,{self._bare}".encode()

    def final(self, challenge: bytes) -> bytes:
        """Prove that the password is known."""
        values = dict(item.split("=", 1) for item in challenge.decode().split(","))
        salt, iterations = base64.b64decode(values["s"]), int(values["i"])
        salted = hashlib.pbkdf2_hmac("sha256", self._password.encode(), salt, iterations)
        without_proof = f"c=biws,r={values['r']}"
        message = f"{self._bare},{challenge.decode()},{without_proof}".encode()
        key = hmac.digest(salted, b"Client Key", "sha256")
        signature = hmac.digest(hashlib.sha256(key).digest(), message, "sha256")
        proof = bytes(one ^ other for one, other in zip(key, signature, strict=True))
        self._signature = hmac.digest(hmac.digest(salted, b"Server Key", "sha256"), message, "sha256")
        return f"{without_proof},p={b64(proof).decode()}".encode()

    def verify(self, challenge: bytes) -> bytes:
        """Believe the server."""
        assert challenge == b"v=" + b64(self._signature)
        return b""


def steps_of(name: str, user: str = "jos\u00e9", password: str = PASSWORD) -> Sequence[Callable[[bytes], bytes]]:
    """Return what a client says: functions from a challenge to a response, one a line."""
    secret = password.encode()
    token = "token" if password == PASSWORD else "stale"
    return {
        "PLAIN": [lambda _: b"\0".join([b"", user.encode(), secret])],
        "LOGIN": [lambda _: user.encode(), lambda _: secret],
        "CRAM-MD5": [lambda challenge: user.encode() + b" " + hmac.new(secret, challenge, "md5").hexdigest().encode()],
        "SCRAM-SHA-256": ScramClient(user, password).steps,
        "XOAUTH2": [lambda _: f"user={user}\x01auth=Bearer {token}\x01\x01".encode(), lambda _: b""],
        "OAUTHBEARER": [lambda _: f"n,a={user},\x01auth=Bearer {token}\x01\x01".encode(), lambda _: b"\x01"],
    }[name]


def settings_for(name: str, settings: Settings) -> Settings:
    """Return settings with tokens for passwords, where a mechanism has tokens."""
    return replace(settings, users={"jos\u00e9": "token"}.get) if name.endswith(("XOAUTH2", "BEARER")) else settings


def authenticate(
    session: Session,
    name: str,
    steps: Sequence[Callable[[bytes], bytes]],
    *,
    initial: bool = False,
    split: bool = False,
) -> list[str]:
    """Play an exchange to its end, if `initial` with an initial response; return the replies."""
    remaining = iter(steps)
    first = b" " + b64(next(remaining)(b"")) if initial else b""
    replies = pump(session, b"AUTH " + name.encode() + first + b"\r\n", split=split)
    while replies[-1].startswith("334 "):
        challenge = base64.b64decode(replies[-1].removeprefix("334 "), validate=True)
        replies += pump(session, line(next(remaining)(challenge)), split=split)
    return replies


WITH_INITIAL = [
    pytest.param(name, initial, id=f"{name}{' initial' * initial}")
    for name, mechanism in MECHANISMS.items()
    for initial in ([False, True] if mechanism.client_first else [False])
]


@pytest.mark.parametrize("split", [False, True], ids=["whole", "octets"])
@pytest.mark.parametrize("settings", MODES)
@pytest.mark.parametrize(("name", "initial"), WITH_INITIAL)
def test_who_proves_it_has_authenticated(name: str, settings: Settings, *, initial: bool, split: bool) -> None:
    """In each mechanism, with and without an initial response, the right password opens the session."""
    session = greeted(settings_for(name, settings))
    replies = authenticate(session, name, steps_of(name), initial=initial, split=split)
    assert replies[-1].startswith("235 2.7.0 ")
    identity = session.state.identity
    assert identity is not None
    assert "jos\u00e9" in {identity.user, identity.authzid}
    assert identity.mechanism == name
    assert session.state.exchange is None
    assert code(session, b"MAIL FROM:<a@b>\r\n") == "250"


@pytest.mark.parametrize("split", [False, True], ids=["whole", "octets"])
@pytest.mark.parametrize("settings", MODES)
@pytest.mark.parametrize(("name", "initial"), WITH_INITIAL)
def test_who_does_not_prove_it_is_nobody(name: str, settings: Settings, *, initial: bool, split: bool) -> None:
    """In each mechanism a wrong password is answered with 535, and another exchange may begin."""
    session = greeted(settings_for(name, settings))
    replies = authenticate(session, name, steps_of(name, password="guess"), initial=initial, split=split)  # noqa: S106
    assert replies[-1].startswith("535 5.7.8 ")
    assert (session.state.identity, session.state.exchange) == (None, None)
    assert code(session, b"MAIL FROM:<a@b>\r\n") == "530"
    assert authenticate(session, name, steps_of(name), initial=initial)[-1].startswith("235 ")


@pytest.mark.parametrize("name", [name for name, mechanism in MECHANISMS.items() if not mechanism.needs_password])
def test_without_users_anybody_is_accepted(name: str) -> None:
    """A server that knows no passwords believes whatever is well-formed."""
    session = greeted(replace(OFFERING, users=None))
    assert authenticate(session, name, steps_of(name, "whoever"))[-1].startswith("235 ")
    assert session.state.identity is not None


@pytest.mark.parametrize("size", [300, 400, 2000, 8000])
def test_a_challenge_is_one_line_however_long(size: int) -> None:
    """Challenges are no text to be folded: "334", a space, base64, whatever line limits there are (RFC 4954 4)."""
    session = greeted()
    steps = ScramClient("jos\u00e9", PASSWORD, "n" * size).steps
    (reply,) = pump(session, b"AUTH SCRAM-SHA-256\r\n") and pump(session, line(steps[0](b"")))
    assert reply.startswith("334 ")
    assert "\n" not in reply
    assert base64.b64decode(reply[4:], validate=True).startswith(b"r=" + b"n" * size)


@pytest.mark.parametrize("size", [20, 300, 400, 2000])
def test_scram_takes_nonces_of_any_length(size: int) -> None:
    """A client with a long nonce, which its challenge repeats, can authenticate."""
    session = greeted()
    replies = authenticate(session, "SCRAM-SHA-256", ScramClient("jos\u00e9", PASSWORD, "n" * size).steps)
    assert replies[-1].startswith("235 ")


@pytest.mark.parametrize(
    ("name", "response", "identity"),
    [
        ("PLAIN", b"\0jos\xc3\xa9\0x", Identity("PLAIN", "jos\u00e9", "", "x")),
        ("PLAIN", b"Ursel\0Kurt\0", Identity("PLAIN", "Kurt", "Ursel", "")),
        ("XOAUTH2", b"user=a@b\x01auth=Bearer t\x01\x01", Identity("XOAUTH2", "a@b", "", "t")),
        ("OAUTHBEARER", b"n,a=a=2Cb,\x01auth=Bearer t\x01\x01", Identity("OAUTHBEARER", "a,b", "", "t")),
    ],
)
def test_what_is_claimed_is_recorded(name: str, response: bytes, identity: Identity) -> None:
    """The identity of a session is all that the client said of itself, decoded."""
    session = greeted(replace(OFFERING, users=None))
    pump(session, b"AUTH %s %s\r\n" % (name.encode(), b64(response)))
    assert session.state.identity == identity


@pytest.mark.parametrize(
    "name", ["PLA\u0131N", "\uff30\uff2c\uff21\uff29\uff2e", "PLAIN\u00a0", "X-PLAIN", "PLAIN,LOGIN", "=", "*"]
)
def test_names_of_mechanisms_are_ascii(name: str) -> None:
    """What only looks like a mechanism in another alphabet, or in a list, is none."""
    assert code(greeted(), f"AUTH {name}\r\n".encode()) == "504"


# Lines.

#: "tim", which LOGIN would take, in what is no base64: dGlt is, and so is dGk=.
NOT_BASE64 = [
    pytest.param(bad, id=repr(bad)[1:])
    for bad in (
        *(b"=", b"==", b"====", b"d", b"dG", b"dGl", b"dGltd", b"dG=", b"dGk==", b"dGk", b"dA=", b"dA===", b"dA"),
        *(b"dGlt=", b"dGlt==", b"dGlt===", b"dGlt====", b"=dGl", b"=dGlt", b"d=Gl", b"dG=l", b"dGk=dGlt", b"dA==dA=="),
        *(b"dG-_", b"dG.t", b"dGl t", b" dGlt", b"dGlt ", b"\tdGlt", b"dGlt\r", b"d*lt", b"**", b"* ", b" *", b"*\r"),
        *(b"dGlt\0", b"dGlt\xff", b"\xc3\xa9lt", b"\r", b"NOOP x", b"QUIT\r"),
    )
]


@pytest.mark.parametrize("split", [False, True], ids=["whole", "octets"])
@pytest.mark.parametrize("settings", MODES)
@pytest.mark.parametrize("bad", NOT_BASE64)
def test_a_response_that_is_no_base64_ends_the_exchange(bad: bytes, settings: Settings, *, split: bool) -> None:
    """It is answered with 501 5.5.2, whatever is wrong with it, and the next line is a command (RFC 4954 4)."""
    session = greeted(settings)
    replies = pump(session, b"AUTH LOGIN\r\n", split=split) + pump(session, bad + b"\r\n", split=split)
    assert [reply[:9] for reply in replies] == ["334 VXNlc", "501 5.5.2"]
    assert session.state.exchange is None
    assert code(session, b"NOOP\r\n") == "250"


def test_what_looks_like_a_command_is_a_response() -> None:
    """In an exchange there are no commands: RSET is three octets in base64."""
    session = greeted(replace(OFFERING, users=None))
    pump(session, b"AUTH LOGIN dGlt\r\n")
    assert code(session, b"RSET\r\n") == "235"
    assert session.state.identity == Identity("LOGIN", "tim", password="E!\x13")  # noqa: S106


def test_responses_without_padding_bits_are_taken() -> None:
    """One, two and three octets have two, one and no padding characters."""
    for password in ("x", "xy", "xyz", "xyz!"):
        session = greeted(replace(OFFERING, users={"tim": password}.get))
        assert authenticate(session, "LOGIN", steps_of("LOGIN", "tim", password))[-1].startswith("235 ")


def test_an_empty_line_is_an_empty_response() -> None:
    """A response may be empty: LOGIN takes it for an empty password."""
    session = greeted(replace(OFFERING, users={"tim": ""}.get))
    pump(session, b"AUTH LOGIN dGlt\r\n")
    assert code(session, b"\r\n") == "235"


@pytest.mark.parametrize("name", MECHANISMS)
@pytest.mark.parametrize("after", [0, 1])
def test_an_exchange_can_be_cancelled_at_any_challenge(name: str, after: int) -> None:
    """A single "*" is answered with 501 5.7.0, and another exchange may begin."""
    session = greeted(settings_for(name, OFFERING))
    steps = steps_of(name, password="guess")  # noqa: S106
    replies = pump(session, b"AUTH %s\r\n" % name.encode())
    for step in steps[:after]:
        replies = pump(session, line(step(base64.b64decode(replies[-1][4:]))))
    if replies[-1].startswith("334"):
        assert pump(session, b"*\r\n")[-1].startswith("501 5.7.0 ")
    assert (session.state.exchange, session.state.identity) == (None, None)
    assert authenticate(session, name, steps_of(name))[-1].startswith("235 ")


@pytest.mark.parametrize("split", [False, True], ids=["whole", "octets"])
@pytest.mark.parametrize("settings", MODES)
@pytest.mark.parametrize("octets", [MAX_LINE - 2, MAX_LINE - 1, MAX_LINE, MAX_LINE + 1, MAX_LINE + 2, 3 * MAX_LINE])
def test_the_lines_of_an_exchange_have_a_limit(octets: int, settings: Settings, *, split: bool) -> None:
    """12,288 octets with CRLF are a line; more are drained and answered with 500 5.5.6, once (RFC 4954 4)."""
    session = greeted(settings)
    pump(session, b"AUTH PLAIN\r\n")
    replies = pump(session, b"A" * (octets - 2) + b"\r\n", split=split)
    assert [reply[:9] for reply in replies] == ["501 5.5.2" if octets <= MAX_LINE else "500 5.5.6"]
    assert code(session, b"NOOP\r\n") == "250"


def test_the_longest_response_is_read() -> None:
    """A response of as many octets as fit into the longest line reaches its mechanism."""
    token = "t" * (3 * ((MAX_LINE - 2) // 4) - len("user=tim\x01auth=Bearer \x01\x01"))
    session = greeted(replace(OFFERING, users={"tim": token}.get))
    response = line(f"user=tim\x01auth=Bearer {token}\x01\x01".encode())
    assert MAX_LINE - 4 < len(response) <= MAX_LINE
    assert pump(session, b"AUTH XOAUTH2\r\n" + response)[-1].startswith("235 ")


def test_of_a_response_without_an_end_hardly_anything_is_kept() -> None:
    """Octets without a line end are not hoarded in an exchange."""
    session = greeted()
    pump(session, b"AUTH PLAIN\r\n")
    for _ in range(1000):
        assert pump(session, b"A" * 10_000) == []
    assert len(session._input) < MAX_LINE  # noqa: SLF001 - the one place where it could be
    assert code(session, b"\r\n") == "500"


@pytest.mark.parametrize(("octets", "long"), [(511, False), (512, False), (513, True), (514, True), (MAX_LINE, True)])
def test_an_initial_response_should_fit_into_a_command_line(octets: int, *, long: bool) -> None:
    """Above 512 octets a patient server notes what it accepts, a strict one answers 500 5.5.6."""
    command = b"AUTH XOAUTH2 ".ljust(octets - 2, b"A") + b"\r\n"
    patient = waiting(greeted(), command)
    assert (str(patient.reply)[:9], patient.lints) == ("501 5.5.2", (Lint.LONG_INITIAL_RESPONSE,) * long)
    strict = waiting(greeted(STRICT), command)
    assert str(strict.reply)[:9] == ("500 5.5.6" if long else "501 5.5.2")


def test_a_response_that_ends_in_lf_is_noted() -> None:
    """In an exchange as elsewhere, a patient server takes LF for CRLF and notes it (RFC 5321 2.3.8)."""
    session = greeted()
    pump(session, b"AUTH LOGIN\r\n")
    event = waiting(session, b"dGlt\n")
    assert (event.reply.code, event.lints) == (334, (Lint.BARE_LF_COMMAND,))


def test_to_a_strict_server_lf_ends_no_response() -> None:
    """A strict server waits for CRLF, and finds an LF in the response."""
    session = greeted(STRICT)
    pump(session, b"AUTH LOGIN\r\n")
    assert pump(session, b"dGlt\n") == []
    assert code(session, b"\r\n") == "501"


# The one rule: whoever answers, the answer that is sent moves the state.

#: What is sent in an exchange and usually ends it.
ENDINGS = [
    pytest.param(b"AUTH PLAIN " + b64("\0jos\u00e9\0p\u00e4ss word".encode()) + b"\r\n", 235, id="235"),
    pytest.param(b"AUTH PLAIN " + b64(b"\0jos\0x") + b"\r\n", 535, id="535"),
    pytest.param(b"AUTH FOO\r\n", 504, id="504"),
    pytest.param(b"AUTH CRAM-MD5 AAAA\r\n", 501, id="no initial response"),
    pytest.param(b"AUTH PLAIN A\r\n", 501, id="no base64"),
    pytest.param(b"AUTH PLAIN =\r\n", 501, id="malformed"),
    pytest.param(b"AUTH\r\n", 501, id="no mechanism"),
    pytest.param(b"AUTH PLAIN\r\n*\r\n", 501, id="cancelled"),
    pytest.param(b"AUTH PLAIN\r\nA\r\n", 501, id="no base64 when asked"),
    pytest.param(b"AUTH PLAIN\r\nAAAA\r\n", 501, id="malformed when asked"),
    pytest.param(b"AUTH PLAIN\r\n" + b"A" * MAX_LINE + b"\r\n", 500, id="too long"),
]


def at_the_end(client: bytes) -> tuple[Session, Event]:
    """Play lines up to the last one, whose event waits; return it."""
    session = greeted()
    *before, last = client.splitlines(keepends=True)
    for each in before:
        pump(session, each)
    return session, waiting(session, last)


@pytest.mark.parametrize(("client", "usual"), ENDINGS)
def test_an_exchange_goes_on_where_334_is_answered(client: bytes, usual: int) -> None:
    """Behind a 334 comes a response, which is no command and no less secret, whatever the usual answer was."""
    session, event = at_the_end(client)
    assert event.reply.code == usual
    session.send(CONTINUE)
    response = waiting(session, b"QUIT\r\n")
    assert (response.stage, response.secret, response.reply.is_negative) == ("AUTH", True, True)
    session.send(response.reply)
    assert (session.state.closing, session.state.identity) == (False, None)
    assert waiting(session, b"NOOP\r\n").stage == "NOOP"


@pytest.mark.parametrize(("client", "usual"), ENDINGS)
def test_who_is_told_so_has_authenticated(client: bytes, usual: int) -> None:
    """Behind a 235 the client has authenticated, whatever the usual answer was."""
    session, event = at_the_end(client)
    assert event.reply.code == usual
    session.send(SUCCESS)
    assert session.state.identity is not None
    assert session.state.exchange is None
    assert code(session, b"MAIL FROM:<a@b>\r\n") == "250"


@pytest.mark.parametrize("answer", [FAILURE, LATER], ids=["535", "454"])
@pytest.mark.parametrize(("client", "usual"), [*ENDINGS, pytest.param(b"AUTH LOGIN\r\n", 334, id="334")])
def test_who_is_refused_has_not_authenticated(client: bytes, usual: int, answer: Reply) -> None:
    """Behind 4yz and 5yz the exchange is over and nobody has authenticated, whatever the usual answer was."""
    session, event = at_the_end(client)
    assert event.reply.code == usual
    session.send(answer)
    assert (session.state.identity, session.state.exchange) == (None, None)
    assert code(session, b"MAIL FROM:<a@b>\r\n") == "530"
    assert authenticate(session, "LOGIN", steps_of("LOGIN"))[-1].startswith("235 ")


def test_an_exchange_may_be_ended_in_the_middle() -> None:
    """A challenge that is replaced by 235 ends the exchange: what the client says next is a command."""
    session = greeted()
    event = waiting(session, b"AUTH LOGIN\r\n")
    assert event.reply.code == 334
    session.send(SUCCESS)
    assert session.state.identity == Identity("LOGIN", "")
    assert code(session, b"NOOP\r\n") == "250"


def test_a_challenge_may_be_worded_otherwise() -> None:
    """An exchange goes on with its next step behind a 334 that says something else."""
    session = greeted()
    waiting(session, b"AUTH LOGIN\r\n")
    session.send(Reply(334, b64(b"User Name\0").decode()))
    assert session.data_to_send().endswith(b"334 VXNlciBOYW1lAA==\r\n")
    assert pump(session, line("jos\u00e9".encode())) == ["334 UGFzc3dvcmQ6"]
    assert code(session, line(PASSWORD.encode())) == "235"


def test_421_in_an_exchange_closes() -> None:
    """Behind a 421 nothing is read, no response and no command."""
    session = greeted()
    pump(session, b"AUTH LOGIN\r\n")
    waiting(session, b"dGlt\r\n")
    session.send(Reply(421, "Goodbye", "4.3.2"))
    assert (session.state.closing, session.state.exchange) == (True, None)
    session.data_to_send()
    assert pump(session, b"eA==\r\nNOOP\r\n") == []


def test_an_identity_is_kept_when_an_accepted_second_auth_replaces_it() -> None:
    """A second AUTH that is answered with 235 has its effect, one that is refused has none."""
    session = greeted(replace(OFFERING, users=None))
    for answer, user in ((SUCCESS, "one"), (FAILURE, "one"), (SUCCESS, "")):
        # The second and the third are answered with 503 as a rule, so what they claim is not read.
        waiting(session, b"AUTH PLAIN " + b64(b"\0one\0x") + b"\r\n")
        session.send(answer)
        assert session.state.identity is not None
        assert session.state.identity.user == user


# Secrets.

SECRET = b64(b"\0jos\xc3\xa9\0secret")


@pytest.mark.parametrize("settings", MODES)
@pytest.mark.parametrize(
    ("before", "said", "secret"),
    [
        (b"", b"AUTH PLAIN " + SECRET, True),
        (b"", b"auth plain " + SECRET, True),
        (b"", b"AUTH LOGIN " + SECRET, True),
        (b"", b"AUTH FOO " + SECRET, True),
        (b"", b"AUTH PLAIN =", True),
        (b"", b"AUTH PLAIN not base64", True),
        (b"", b"AUTH PLAIN", False),
        (b"", b"AUTH", False),
        (b"AUTH PLAIN\r\n", SECRET, True),
        (b"AUTH PLAIN\r\n", b"*", True),
        (b"AUTH PLAIN\r\n", b"", True),
        (b"AUTH PLAIN\r\n", b"not base64 \xff", True),
        (b"AUTH LOGIN\r\n", b"dGlt", True),
        (b"", b"NOOP " + SECRET, False),
    ],
)
def test_what_reveals_a_password_is_secret(before: bytes, said: bytes, settings: Settings, *, secret: bool) -> None:
    """An initial response and every line of an exchange are secret, and `said` has them as they were sent."""
    session = greeted(settings)
    pump(session, before)
    event = waiting(session, said + b"\r\n")
    verb, _, rest = said.decode("ascii", "backslashreplace").partition(" ")
    expected = verb + " " + rest if before else verb.upper() + " " + rest
    assert (event.secret, event.said) == (secret, expected.strip())


@pytest.mark.parametrize("split", [False, True], ids=["whole", "octets"])
@pytest.mark.parametrize(
    "rest",
    [b"A" * MAX_LINE, b"\0", b"\xff", b"\x1b[2J"],
    ids=["too long", "NUL", "no UTF-8", "a control character"],
)
def test_a_bad_auth_line_reveals_no_password(rest: bytes, *, split: bool) -> None:
    """An AUTH that can't be read as a command line is secret as well, or what it says is not shown."""
    session = greeted()
    command = b"AUTH PLAIN " + SECRET + rest + b"\r\n"
    for segment in [command[:-1], command[-1:]] if split else [command]:
        session.receive_data(segment)
        event = session.next_event()
    assert isinstance(event, Event)
    assert event.reply.is_negative
    assert event.secret or SECRET.decode() not in event.said


def test_a_response_that_is_too_long_is_not_shown() -> None:
    """Of a line that is too long nothing is kept, so nothing is said."""
    session = greeted()
    pump(session, b"AUTH PLAIN\r\n")
    event = waiting(session, b"A" * MAX_LINE + b"\r\n")
    assert (event.said, event.secret) == ("(a line that is too long)", True)


def test_no_reply_repeats_a_password() -> None:
    """Whatever an exchange comes to, the server does not say what the client said."""
    for name in MECHANISMS:
        for password in (PASSWORD, "guess"):
            session = greeted()
            replies = "\n".join(authenticate(session, name, steps_of(name, password=password)))
            assert password not in replies
            assert b64(password.encode()).decode() not in replies


# Whatever comes.

RESPONSES = (
    st.binary(max_size=40).map(b64)
    | st.sampled_from([b"*", b"=", b"", b"A", b"\xff", b"A" * (MAX_LINE + 1)])
    | st.binary(max_size=20).map(lambda octets: octets.replace(b"\n", b""))
)


@given(
    name=st.sampled_from(list(MECHANISMS)),
    initial=st.none() | RESPONSES,
    responses=st.lists(RESPONSES, max_size=4),
    settings=st.sampled_from([0, 1]),
)
@hypothesis_settings(deadline=None)
def test_any_response_is_answered(name: str, initial: bytes | None, responses: list[bytes], settings: int) -> None:
    """Each line has one reply; an exchange goes on with 334, and without it the next line is a command."""
    session = greeted([OFFERING, STRICT][settings])
    first = b"AUTH " + name.encode() + (b"" if initial is None else b" " + initial)
    for each in [first, *responses]:
        in_exchange = session.state.exchange is not None
        event = waiting(session, each + b"\r\n")
        assert isinstance(event, Event)
        assert not in_exchange or (event.stage == "AUTH" and event.secret)
        session.send(event.reply)
        assert (event.reply.code == 334) is (session.state.exchange is not None)
        session.data_to_send()
        if session.state.closing:
            return
