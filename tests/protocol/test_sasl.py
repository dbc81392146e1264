"""The server's side of the SASL mechanisms, against the vectors of the RFCs and against clients."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import smtplib
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_smtpd.protocol.auth import MECHANISM_NAMES
from pytest_smtpd.protocol.sasl import (
    MECHANISMS,
    Identity,
    MalformedResponse,
    Outcome,
    cram_md5,
    scram_sha_256,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pytest_smtpd.protocol.sasl import Exchange, Users

USERS = {
    "tim": "tanstaaftanstaaf",
    "Kurt": "xipj3plmq",
    "user": "pencil",
    "ada": "pa ss\u00e9",
    "Ada Lovelace": "engine",
    "someuser@example.com": "ya29.vF9dft4qmTc2Nvb3RlckBhdHRhdmlzdGEuY29tCg",
    "user@example.com": "vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg==",
}.get

XOAUTH2_ERROR = {"status": "401", "schemes": "Bearer", "scope": "https://mail.google.com/"}


def converse(exchange: Exchange, answer: Callable[[bytes], bytes]) -> Outcome:
    """Answer challenges as long as there are any."""
    try:
        challenge = next(exchange)
        while True:
            challenge = exchange.send(answer(challenge))
    except StopIteration as end:
        outcome: Outcome = end.value
        return outcome


def run(exchange: Exchange, responses: Iterable[bytes] = ()) -> tuple[list[bytes], Outcome]:
    """Send these responses, all of which must be wanted; return the challenges and the outcome."""
    remaining = list(responses)
    challenges: list[bytes] = []

    def answer(challenge: bytes) -> bytes:
        challenges.append(challenge)
        return remaining.pop(0)

    outcome = converse(exchange, answer)
    assert not remaining
    return challenges, outcome


def outcome_of(name: str, *responses: bytes, users: Users = USERS) -> Outcome:
    """Run a mechanism in which the first response is an initial one, if the mechanism takes one."""
    mechanism = MECHANISMS[name]
    if mechanism.client_first:
        return run(mechanism.exchange(users, responses[0]), responses[1:])[1]
    return run(mechanism.exchange(users, None), responses)[1]


@dataclass(frozen=True)
class Vector:
    """An exchange that a specification shows: what both sides say, and who is accepted."""

    exchange: Callable[[Users, bytes | None], Exchange]
    initial: bytes | None
    challenges: tuple[bytes, ...]
    responses: tuple[bytes, ...]
    identity: Identity


VECTORS = {
    "RFC 4616 4, without authzid": Vector(
        MECHANISMS["PLAIN"].exchange,
        None,
        (b"",),
        (b"\0tim\0tanstaaftanstaaf",),
        Identity("PLAIN", "tim", password="tanstaaftanstaaf"),  # noqa: S106
    ),
    "RFC 4616 4, with authzid": Vector(
        MECHANISMS["PLAIN"].exchange,
        None,
        (b"",),
        (b"Ursel\0Kurt\0xipj3plmq",),
        Identity("PLAIN", "Kurt", authzid="Ursel", password="xipj3plmq"),  # noqa: S106
    ),
    "draft-murchison-sasl-login": Vector(
        MECHANISMS["LOGIN"].exchange,
        None,
        (b"Username:", b"Password:"),
        (b"tim", b"tanstaaftanstaaf"),
        Identity("LOGIN", "tim", password="tanstaaftanstaaf"),  # noqa: S106
    ),
    "RFC 2195 2": Vector(
        partial(cram_md5, challenge=b"<1896.697170952@postoffice.reston.mci.net>"),
        None,
        (b"<1896.697170952@postoffice.reston.mci.net>",),
        (b"tim b913a602c7eda7a495b4e6e7334d3890",),
        Identity("CRAM-MD5", "tim"),
    ),
    "RFC 7677 3": Vector(
        partial(
            scram_sha_256, nonce="%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0", salt=base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")
        ),
        b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO",
        (
            b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
            b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=",
        ),
        (
            b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
            b"",
        ),
        Identity("SCRAM-SHA-256", "user"),
    ),
    "Google's XOAUTH2": Vector(
        MECHANISMS["XOAUTH2"].exchange,
        base64.b64decode(
            "dXNlcj1zb21ldXNlckBleGFtcGxlLmNvbQFhdXRoPUJlYXJlciB5YTI5LnZGOWRmdDRxbVRjMk52"
            "YjNSbGNrQmhkSFJoZG1semRHRXVZMjl0Q2cBAQ=="
        ),
        (),
        (),
        Identity(
            "XOAUTH2",
            "someuser@example.com",
            password="ya29.vF9dft4qmTc2Nvb3RlckBhdHRhdmlzdGEuY29tCg",  # noqa: S106
        ),
    ),
    "RFC 7628 4.1": Vector(
        MECHANISMS["OAUTHBEARER"].exchange,
        base64.b64decode(
            "bixhPXVzZXJAZXhhbXBsZS5jb20sAWhvc3Q9c2VydmVyLmV4YW1wbGUuY29tAXBvcnQ9MTQzAWF1dGg9QmVhcmVyIHZGOWRmdDRxbVRj"
            "Mk52YjNSbGNrQmhiSFJoZG1semRHRXVZMjl0Q2c9PQEB"
        ),
        (),
        (),
        Identity(
            "OAUTHBEARER",
            "user@example.com",
            password="vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg==",  # noqa: S106
        ),
    ),
}


@pytest.mark.parametrize("vector", VECTORS.values(), ids=VECTORS.keys())
def test_vectors_of_the_specifications(vector: Vector) -> None:
    """The examples of the specifications go as they are printed there."""
    challenges, outcome = run(vector.exchange(USERS, vector.initial), vector.responses)
    assert challenges == list(vector.challenges)
    assert outcome == Outcome(vector.identity, accepted=True)


CLIENT_FIRST = {name: vector for name, vector in VECTORS.items() if "RFC 7677" not in name and "2195" not in name}


@pytest.mark.parametrize("vector", CLIENT_FIRST.values(), ids=CLIENT_FIRST.keys())
def test_initial_response(vector: Vector) -> None:
    """It makes no difference whether the first response is an initial one or one to an empty challenge."""
    first, *rest = vector.responses or (vector.initial or b"",)
    with_initial = run(vector.exchange(USERS, first), rest)
    without_initial = run(vector.exchange(USERS, None), [first, *rest])
    assert with_initial[1] == without_initial[1] == Outcome(vector.identity, accepted=True)
    assert len(without_initial[0]) == len(with_initial[0]) + 1


def cram_response(user: str, password: str, challenge: bytes) -> bytes:
    """Answer a CRAM-MD5 challenge."""
    return f"{user} {hmac.new(password.encode(), challenge, 'md5').hexdigest()}".encode()


class ScramError(Exception):
    """The client does not trust the server."""


@dataclass
class ScramClient:
    """A client for SCRAM-SHA-256 that makes sure that the server knows the password too."""

    user: str
    password: str
    header: str = "n,,"
    nonce: str = "client-nonce"
    #: What to sabotage: replaces a text in client-final-message-without-proof.
    change: tuple[str, str] = ("", "")
    #: What it answers to the server's signature.
    last: bytes = b""
    signature: str = ""

    @property
    def bare(self) -> str:
        """Return client-first-message-bare."""
        return f"n={self.user.replace('=', '=3D').replace(',', '=2C')},r={self.nonce}"

    def first(self) -> bytes:
        """Return client-first-message."""
        return (self.header + self.bare).encode()

    def answer(self, challenge: bytes) -> bytes:
        """Answer server-first-message with client-final-message, and check server-final-message."""
        if challenge.startswith(b"v="):
            if challenge.decode() != f"v={self.signature}":
                raise ScramError
            return self.last
        nonce, salt, iterations = (part.split("=", 1)[1] for part in challenge.decode().split(","))
        final = f"c={base64.b64encode(self.header.encode()).decode()},r={nonce}".replace(*self.change)
        message = f"{self.bare},{challenge.decode()},{final}".encode()
        salted = hashlib.pbkdf2_hmac("sha256", self.password.encode(), base64.b64decode(salt), int(iterations))
        client_key, server_key = (hmac.digest(salted, key, "sha256") for key in (b"Client Key", b"Server Key"))
        stored_key = hashlib.sha256(client_key).digest()
        client_signature = int.from_bytes(hmac.digest(stored_key, message, "sha256"), "big")
        proof = (int.from_bytes(client_key, "big") ^ client_signature).to_bytes(32, "big")
        self.signature = base64.b64encode(hmac.digest(server_key, message, "sha256")).decode()
        return f"{final},p={base64.b64encode(proof).decode()}".encode()

    def log_in(self, users: Users = USERS) -> Outcome:
        """Run the exchange to its end."""
        return converse(scram_sha_256(users, self.first()), self.answer)


def log_in(name: str, user: str, password: str, users: Users = USERS) -> Outcome:
    """Log in with any mechanism, as a client does that keeps to the rules."""
    token = f"auth=Bearer {password}\x01\x01".encode()
    match name:
        case "PLAIN":
            return outcome_of(name, f"\0{user}\0{password}".encode(), users=users)
        case "LOGIN":
            return outcome_of(name, user.encode(), password.encode(), users=users)
        case "CRAM-MD5":
            exchange = cram_md5(users, None, challenge=b"<1@x>")
            return run(exchange, [cram_response(user, password, b"<1@x>")])[1]
        case "SCRAM-SHA-256":
            return ScramClient(user, password).log_in(users)
        case "XOAUTH2":
            exchange, reason = MECHANISMS[name].exchange(users, f"user={user}\x01".encode() + token), b""
        case _:
            exchange, reason = MECHANISMS[name].exchange(users, f"n,a={user},\x01".encode() + token), b"\x01"
    return converse(exchange, lambda _challenge: reason)


REVEALING = {"PLAIN", "LOGIN", "XOAUTH2", "OAUTHBEARER"}


@pytest.mark.parametrize("name", MECHANISMS)
@pytest.mark.parametrize(
    ("user", "password", "accepted"),
    [
        ("user", "pencil", True),
        ("user", "Pencil", False),
        ("user", "pencil2", False),
        ("USER", "pencil", False),
        ("nobody", "pencil", False),
    ],
)
def test_who_is_accepted(name: str, user: str, password: str, accepted: bool) -> None:  # noqa: FBT001
    """Every mechanism accepts a known user with the right password, nobody else, and says who it was."""
    revealed = password if name in REVEALING else None
    assert log_in(name, user, password) == Outcome(Identity(name, user, password=revealed), accepted)


@pytest.mark.parametrize("name", ["PLAIN", "LOGIN", "CRAM-MD5", "SCRAM-SHA-256"])
def test_empty_password_opens_nothing(name: str) -> None:
    """An empty password is refused for users with a password and for unknown ones, who are compared with it."""
    assert not log_in(name, "user", "").accepted
    assert not log_in(name, "nobody", "").accepted
    assert log_in(name, "user", "", {"user": ""}.get).accepted


@pytest.mark.parametrize("name", MECHANISMS)
def test_without_users(name: str) -> None:
    """Without users everybody is accepted and recorded, except by what has to know the password."""
    outcome = log_in(name, "anyone", "anything", None)
    assert outcome.identity.user == "anyone"
    assert outcome.accepted is not MECHANISMS[name].needs_password


@pytest.mark.parametrize("name", ["PLAIN", "LOGIN", "SCRAM-SHA-256"])
@pytest.mark.parametrize("other", ["cafe\u0301", "\uff43af\u00e9"], ids=["decomposed", "fullwidth"])
def test_passwords_are_normalized(name: str, other: str) -> None:
    """Two ways to encode a password make one password (RFC 4013, by NFKC)."""
    if name == "SCRAM-SHA-256":  # where clients must send something made of the normal form
        assert log_in(name, "user", "caf\u00e9", {"user": other}.get).accepted
    else:
        assert log_in(name, "user", other, {"user": "caf\u00e9"}.get).accepted


MALFORMED = [
    ("PLAIN", [b""]),
    ("PLAIN", [b"tim"]),
    ("PLAIN", [b"tim\0tanstaaftanstaaf"]),
    ("PLAIN", [b"\0tim\0tanstaaftanstaaf\0"]),
    ("PLAIN", [b"\0tim\0a\0b"]),
    ("PLAIN", [b"\0\0tanstaaftanstaaf"]),
    ("PLAIN", [b"\0tim\0\xff"]),
    ("PLAIN", [b"\xff\0tim\0tanstaaftanstaaf"]),
    ("LOGIN", [b""]),
    ("LOGIN", [b"\xff"]),
    ("LOGIN", [b"ti\0m"]),
    ("LOGIN", [b"tim", b"\xff"]),
    ("CRAM-MD5", [b""]),
    ("CRAM-MD5", [b"tim"]),
    ("CRAM-MD5", [b"b913a602c7eda7a495b4e6e7334d3890"]),
    ("CRAM-MD5", [b" b913a602c7eda7a495b4e6e7334d3890"]),
    ("CRAM-MD5", [b"tim b913a602c7eda7a495b4e6e7334d389"]),
    ("CRAM-MD5", [b"tim b913a602c7eda7a495b4e6e7334d3890 "]),
    ("CRAM-MD5", [b"tim \xff"]),
    ("XOAUTH2", [b""]),
    ("XOAUTH2", [b"user=\x01auth=Bearer t\x01\x01"]),
    ("XOAUTH2", [b"user=user\x01auth=Bearer t\x01"]),
    ("XOAUTH2", [b"user=user\x01auth=Bearer \x01\x01"]),
    ("XOAUTH2", [b"user=user\x01auth=Basic t\x01\x01"]),
    ("XOAUTH2", [b"n,a=user,\x01auth=Bearer t\x01\x01"]),
    ("XOAUTH2", [b"user=\xff\x01auth=Bearer t\x01\x01"]),
    ("OAUTHBEARER", [b""]),
    ("OAUTHBEARER", [b"\x01"]),
    ("OAUTHBEARER", [b"n,,\x01\x01"]),
    ("OAUTHBEARER", [b"n,,\x01host=h\x01\x01"]),
    ("OAUTHBEARER", [b"n,,\x01auth=Bearer t\x01"]),
    ("OAUTHBEARER", [b"n,,\x01auth=Bearer t\x01\x01\x01"]),
    ("OAUTHBEARER", [b"n,,\x01auth\x01\x01"]),
    ("OAUTHBEARER", [b"n,,auth=Bearer t\x01\x01"]),
    ("OAUTHBEARER", [b"n,a=,\x01auth=Bearer t\x01\x01"]),
    ("OAUTHBEARER", [b"n,a=a=b,\x01auth=Bearer t\x01\x01"]),
    ("OAUTHBEARER", [b"n,user=user,\x01auth=Bearer t\x01\x01"]),
    ("OAUTHBEARER", [b"n,a=\xff,\x01auth=Bearer t\x01\x01"]),
    ("SCRAM-SHA-256", [b""]),
    ("SCRAM-SHA-256", [b"n=user,r=abc"]),
    ("SCRAM-SHA-256", [b"n,n=user,r=abc"]),
    ("SCRAM-SHA-256", [b"x,,n=user,r=abc"]),
    ("SCRAM-SHA-256", [b"p,,n=user,r=abc"]),
    ("SCRAM-SHA-256", [b"n,,n=,r=abc"]),
    ("SCRAM-SHA-256", [b"n,,n=user,r="]),
    ("SCRAM-SHA-256", [b"n,,n=user,r=a\x7f"]),
    ("SCRAM-SHA-256", [b"n,,n=us=er,r=abc"]),
    ("SCRAM-SHA-256", [b"n,,n=us=2Der,r=abc"]),
    ("SCRAM-SHA-256", [b"n,,n=us\0er,r=abc"]),
    ("SCRAM-SHA-256", [b"n,,m=must,n=user,r=abc"]),
    ("SCRAM-SHA-256", [b"n,,n=user,r=abc,"]),
    ("SCRAM-SHA-256", [b"n,,n=\xff,r=abc"]),
    ("SCRAM-SHA-256", [b"n,,n=user,r=abc", b""]),
    ("SCRAM-SHA-256", [b"n,,n=user,r=abc", b"c=biws,r=abc"]),
    ("SCRAM-SHA-256", [b"n,,n=user,r=abc", b"r=abc,c=biws,p=AAAA"]),
    ("SCRAM-SHA-256", [b"n,,n=user,r=abc", b"c=biws,r=abc,p=AAA"]),
    ("SCRAM-SHA-256", [b"n,,n=user,r=abc", b"c=biws,r=abc,p=A==="]),
    ("SCRAM-SHA-256", [b"n,,n=user,r=abc", b"c=biw,r=abc,p=AAAA"]),
    ("SCRAM-SHA-256", [b"n,,n=user,r=abc", b"c=biws,r=abc,p=\xff"]),
]


@pytest.mark.parametrize(("name", "responses"), MALFORMED)
@pytest.mark.parametrize("users", [USERS, None], ids=["users", "no users"])
def test_malformed(name: str, responses: list[bytes], users: Users) -> None:
    """A response that is not of the mechanism's grammar is malformed, whoever may log in."""
    with pytest.raises(MalformedResponse, match="the response"):
        outcome_of(name, *responses, users=users)


@pytest.mark.parametrize("response", [b"tim\0secret", b"\0tim\0secret\xff"])
def test_malformed_responses_are_not_repeated(response: bytes) -> None:
    """Neither the error nor what led to it gives away what may be a password."""
    with pytest.raises(MalformedResponse) as caught:
        outcome_of("PLAIN", response)
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ is (caught.value.__context__ is not None)


def test_repr_hides_the_password() -> None:
    """An identity that is printed does not show its password."""
    assert "pencil" not in repr(log_in("PLAIN", "user", "pencil"))


def test_plain_is_utf_8() -> None:
    """All three parts of PLAIN are UTF-8 (RFC 4616 2)."""
    outcome = outcome_of("PLAIN", "\u00fcrsel\0ada\0pa ss\u00e9".encode())
    assert outcome == Outcome(Identity("PLAIN", "ada", "\u00fcrsel", "pa ss\u00e9"), accepted=True)


@pytest.mark.parametrize("initial", [b"", b"tim"])
def test_cram_md5_has_no_initial_response(initial: bytes) -> None:
    """CRAM-MD5 begins with the server, so an initial response is malformed, even an empty one (RFC 4954 4)."""
    with pytest.raises(MalformedResponse, match="no initial response"):
        next(cram_md5(USERS, initial))
    assert not MECHANISMS["CRAM-MD5"].client_first


def test_cram_md5_user_with_spaces() -> None:
    """The last space of a CRAM-MD5 response parts user and digest."""
    assert log_in("CRAM-MD5", "Ada Lovelace", "engine").accepted


def test_cram_md5_challenges() -> None:
    """CRAM-MD5 challenges have the form of a message identifier, and no two are the same (RFC 2195 2)."""
    challenges = {next(cram_md5(USERS, None)) for _ in range(20)}
    assert len(challenges) == 20
    assert all(challenge[:1] + challenge[-1:] == b"<>" and b"@" in challenge for challenge in challenges)


def test_cram_md5_digest_of_another_challenge() -> None:
    """The answer to one challenge is no answer to the next."""
    response = cram_response("tim", "tanstaaftanstaaf", b"<1@x>")
    assert not run(cram_md5(USERS, None, challenge=b"<2@x>"), [response])[1].accepted


@pytest.mark.parametrize("answer", [b"", b"anything", b"\xff"])
@pytest.mark.parametrize(
    ("name", "response", "error"),
    [
        ("XOAUTH2", b"user=user\x01auth=Bearer wrong\x01\x01", XOAUTH2_ERROR),
        ("OAUTHBEARER", b"n,a=user,\x01auth=Bearer wrong\x01\x01", {"status": "invalid_token"}),
    ],
)
def test_refused_token(name: str, response: bytes, error: dict[str, str], answer: bytes) -> None:
    """A wrong token is answered with the reason as JSON; whatever the client says to it, it has failed."""
    (challenge,), outcome = run(MECHANISMS[name].exchange(USERS, response), [answer])
    assert json.loads(challenge) == error
    assert outcome == Outcome(Identity(name, "user", password="wrong"), accepted=False)  # noqa: S106


@pytest.mark.parametrize(
    ("response", "user"),
    [
        (b"n,,\x01auth=Bearer t\x01\x01", ""),
        (b"y,a=user,\x01auth=bearer  t\x01\x01", "user"),
        (b"n,a=a=3Db=2Cc,\x01auth=BEARER t \x01\x01", "a=b,c"),
        (b"n,a=\xc3\xbc,\x01port=25\x01auth=Bearer t\x01host=\x01\x01", "\u00fc"),
    ],
)
def test_oauthbearer_forms(response: bytes, user: str) -> None:
    """OAUTHBEARER may leave out the user and have more pairs; "Bearer" has no case (RFC 7628 3.1)."""
    asked: list[str] = []
    identity = Identity("OAUTHBEARER", user, password="t")  # noqa: S106

    def users(name: str) -> str:
        asked.append(name)
        return "t"

    assert outcome_of("OAUTHBEARER", response, users=users) == Outcome(identity, accepted=True)
    assert asked == [user]


@pytest.mark.parametrize("users", [USERS, None], ids=["users", "no users"])
@pytest.mark.parametrize(
    "response",
    [
        b"n,a=user,\x01auth=\x01\x01",
        b"n,a=user,\x01auth=Bearer \x01\x01",
        b"n,a=user,\x01auth=Basic dXNlcjpwZW5jaWw=\x01\x01",
        b"n,a=user,\x01auth=pencil\x01\x01",
        b"p=tls-exporter,a=user,\x01auth=Bearer pencil\x01\x01",
    ],
)
def test_oauthbearer_without_a_token(response: bytes, users: Users) -> None:
    """No token, another scheme, or a wish for channel binding is refused, also where everybody is accepted."""
    challenges, outcome = run(MECHANISMS["OAUTHBEARER"].exchange(users, response), [b"\x01"])
    assert [json.loads(challenge) for challenge in challenges] == [{"status": "invalid_token"}]
    assert outcome == Outcome(Identity("OAUTHBEARER", "user"), accepted=False)


@pytest.mark.parametrize("header", ["n,,", "y,,", "n,a=boss,", "y,a=a=3Db=2Cc,"])
def test_scram_headers(header: str) -> None:
    """SCRAM goes with and without an authorization identity, for clients that can bind channels and that can't."""
    outcome = ScramClient("user", "pencil", header).log_in()
    authzid = {"n,a=boss,": "boss", "y,a=a=3Db=2Cc,": "a=b,c"}.get(header, "")
    assert outcome == Outcome(Identity("SCRAM-SHA-256", "user", authzid), accepted=True)


@pytest.mark.parametrize("user", ["a=b,c", "a=2Cb", ",=", "=3D"])
def test_scram_names_are_escaped(user: str) -> None:
    """In SCRAM's names =2C is a comma and =3D an equals sign, and passwords are as they are (RFC 5802 5.1)."""
    outcome = ScramClient(user, "x=2C").log_in({user: "x=2C"}.get)
    assert outcome == Outcome(Identity("SCRAM-SHA-256", user), accepted=True)


def test_scram_refuses_channel_binding() -> None:
    """A client that binds the channel asks for more than this mechanism has (RFC 5802 6)."""
    outcome = outcome_of("SCRAM-SHA-256", b"p=tls-unique,,n=user,r=abc")
    assert outcome == Outcome(Identity("SCRAM-SHA-256", "user"), accepted=False)


@pytest.mark.parametrize(
    ("header", "change"),
    [
        ("n,,", ("client-nonce", "another-nonce")),
        ("n,,", ("c=biws", "c=eSws")),
        ("y,,", ("c=eSws", "c=biws")),
        ("n,a=boss,", ("c=bixhPWJvc3Ms", "c=biws")),
    ],
)
def test_scram_messages_belong_together(header: str, change: tuple[str, str]) -> None:
    """A proof over another nonce or another header than was sent first is refused (RFC 5802 5.1)."""
    client = ScramClient("user", "pencil", header, change=change)
    assert not client.log_in().accepted


@pytest.mark.parametrize("extension", [("r=client", "r=client"), (",r=", ",r="), ("", "")])
def test_scram_unchanged_messages_are_accepted(extension: tuple[str, str]) -> None:
    """The client that the tests sabotage is accepted when its change changes nothing."""
    assert ScramClient("user", "pencil", change=extension).log_in().accepted


def test_scram_extensions_are_ignored() -> None:
    """Extensions that a server need not know are part of what is signed, and mean nothing (RFC 5802 5.1)."""
    client = ScramClient("user", "pencil", nonce="abc,x=y")
    exchange = scram_sha_256(USERS, client.first(), nonce="def")
    server_first = next(exchange)
    assert server_first.startswith(b"r=abcdef,s=")
    assert exchange.send(client.answer(server_first)) == f"v={client.signature}".encode()


def test_scram_last_response_is_empty() -> None:
    """To the server's signature a client says nothing more (RFC 4954 4)."""
    with pytest.raises(MalformedResponse, match="is empty"):
        ScramClient("user", "pencil", last=b"thanks").log_in()


def test_scram_proves_the_server() -> None:
    """A client can tell a server that knows the password from one that doesn't, which cannot go on at all."""
    client = ScramClient("user", "pencil")
    assert not client.log_in({"user": "guess"}.get).accepted
    with pytest.raises(ScramError):
        client.answer(b"v=" + base64.b64encode(bytes(32)))


def test_scram_unknown_users_look_like_known_ones() -> None:
    """Known and unknown users have salts of one kind, always the same ones, and unlike each other."""

    def salt_and_iterations(user: str) -> list[str]:
        challenge = next(scram_sha_256(USERS, ScramClient(user, "").first(), nonce="x"))
        return challenge.decode().split(",")[1:]

    known, unknown, other = (salt_and_iterations(user) for user in ("user", "nobody", "somebody"))
    assert [salt_and_iterations("user"), salt_and_iterations("nobody")] == [known, unknown]
    assert known[0] != unknown[0] != other[0]
    assert {len(base64.b64decode(answer[0][2:])) for answer in (known, unknown, other)} == {16}
    assert known[1] == unknown[1] == other[1] == "i=4096"


def test_scram_nonces() -> None:
    """The server adds something of its own to the client's nonce each time."""
    nonces = {next(scram_sha_256(USERS, b"n,,n=user,r=abc")).split(b",")[0] for _ in range(20)}
    assert len(nonces) == 20
    assert all(nonce.startswith(b"r=abc") and len(nonce) > 20 for nonce in nonces)


@pytest.mark.parametrize("name", MECHANISMS)
def test_secrets_are_compared_in_constant_time(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Secrets are compared by hmac.compare_digest, as octets, for unknown users just as for known ones."""
    compared = []

    def compare(one: bytes, other: bytes) -> bool:
        compared.append((type(one), type(other)))
        return one == other

    monkeypatch.setattr(hmac, "compare_digest", compare)
    for user, password in (("user", "pencil"), ("user", "wrong"), ("nobody", "pencil")):
        log_in(name, user, password)
    assert compared == [(bytes, bytes)] * 3


class Client(smtplib.SMTP):
    """The real smtplib, with an exchange in place of its connection."""

    def __init__(self, user: str, password: str) -> None:
        super().__init__()
        self.user = user
        self.password = password
        self.exchange: Exchange | None = None
        self.outcome: Outcome | None = None

    def docmd(self, cmd: str, args: str = "") -> tuple[int, bytes]:
        """Do to a command line what the AUTH command does."""
        try:
            if self.exchange is None:
                name, _, initial = args.partition(" ")
                self.exchange = MECHANISMS[name].exchange(USERS, base64.b64decode(initial) if initial else None)
                challenge = next(self.exchange)
            else:
                challenge = self.exchange.send(base64.b64decode(cmd))
        except StopIteration as end:
            self.outcome = end.value
            return (235, b"2.7.0 ok") if end.value.accepted else (535, b"5.7.8 no")
        return 334, base64.b64encode(challenge)


AUTH_OBJECTS: list[tuple[str, Callable[[Client], Any]]] = [
    ("PLAIN", lambda client: client.auth_plain),
    ("LOGIN", lambda client: client.auth_login),
    ("CRAM-MD5", lambda client: client.auth_cram_md5),
]


@pytest.mark.parametrize("initial_response_ok", [True, False])
@pytest.mark.parametrize(("name", "auth_object"), AUTH_OBJECTS, ids=[name for name, _ in AUTH_OBJECTS])
def test_smtplib(name: str, auth_object: Callable[[Client], Any], initial_response_ok: bool) -> None:  # noqa: FBT001
    """The smtplib of the standard library logs in, with and without an initial response, and is refused."""
    client = Client("user", "pencil")
    assert client.auth(name, auth_object(client), initial_response_ok=initial_response_ok) == (235, b"2.7.0 ok")
    assert client.outcome
    assert (client.outcome.identity.user, client.outcome.accepted) == ("user", True)

    client = Client("user", "wrong")
    with pytest.raises(smtplib.SMTPAuthenticationError):
        client.auth(name, auth_object(client), initial_response_ok=initial_response_ok)
    assert client.outcome == Outcome(
        Identity(name, "user", password="wrong" if name in REVEALING else None), accepted=False
    )


def test_mechanisms() -> None:
    """The table says of each mechanism what the AUTH command must know of it."""
    assert list(MECHANISMS) == [mechanism.name for mechanism in MECHANISMS.values()]
    assert {name for name, mechanism in MECHANISMS.items() if mechanism.plaintext} == REVEALING
    assert [name for name, mechanism in MECHANISMS.items() if not mechanism.client_first] == ["CRAM-MD5"]
    assert [name for name, mechanism in MECHANISMS.items() if mechanism.needs_password] == ["SCRAM-SHA-256"]


def is_let_in(name: str, initial: bytes | None, responses: Iterable[bytes]) -> bool:
    """Run an exchange until it ends, is malformed, or there are no responses left."""
    exchange = MECHANISMS[name].exchange(lambda _user: "the secret of all", initial)
    try:
        next(exchange)
        for response in responses:
            exchange.send(response)
    except StopIteration as end:
        accepted: bool = end.value.accepted
        return accepted
    except MalformedResponse:
        pass
    return False


#: Octets, and octets that come nearer to what is expected.
HOSTILE = st.binary() | st.lists(
    st.sampled_from([b"\0", b"\x01", b",", b"=", b" ", b"n", b"y", b"p=", b"a=", b"n=u", b"r=", b"c=biws", b"p=AAAA"])
    | st.sampled_from([b"user=u", b"auth=", b"Bearer t", b"=2C", b"0" * 32, b"\xff", b"v="])
    | st.binary(max_size=2)
).map(b"".join)


@given(st.sampled_from(list(MECHANISMS)), st.none() | HOSTILE, st.lists(HOSTILE, max_size=4))
def test_arbitrary_responses(name: str, initial: bytes | None, responses: list[bytes]) -> None:
    """Whatever octets come, a response is malformed or the client is refused."""
    assert not is_let_in(name, initial, responses)


@given(HOSTILE)
def test_arbitrary_scram_proofs(final: bytes) -> None:
    """Whatever follows a good first message of SCRAM, it lets nobody in."""
    assert not is_let_in("SCRAM-SHA-256", b"n,,n=user,r=abc", [final, b""])


REPEATED = [
    ("PLAIN", b"\0", b"a"),
    ("CRAM-MD5", b"", b" a"),
    ("OAUTHBEARER", b"n,,\x01", b"auth=\x01"),
    ("OAUTHBEARER", b"n,a=", b"=2C"),
    ("SCRAM-SHA-256", b"n,,n=", b"=3D"),
    ("SCRAM-SHA-256", b"n,,n=u,r=a", b",x=y"),
    ("XOAUTH2", b"user=u\x01auth=Bearer ", b" t"),
]


@pytest.mark.parametrize(("name", "start", "part"), REPEATED)
def test_long_responses(name: str, start: bytes, part: bytes) -> None:
    """Long responses that are wrong only at their end are malformed like short ones, in linear time."""
    # Quadratic time would be hours.
    with pytest.raises(MalformedResponse):
        outcome_of(name, start + part * (1_000_000 // len(part)) + b"\0\0\0")


def test_all_mechanisms_are_named() -> None:
    """The names that are known before the mechanisms are imported are theirs, in their order."""
    assert tuple(MECHANISMS) == MECHANISM_NAMES
