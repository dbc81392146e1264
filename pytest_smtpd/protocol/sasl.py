"""RFC 4422: the server's side of the SASL mechanisms, each a small generator.

An exchange yields challenges, is sent the client's responses, and returns its Outcome. Base64, the lines
around it and the "*" that cancels belong to the profile, which is RFC 4954: they are the AUTH command's.

A server in a test accepts any authorization identity from whoever has authenticated, and records it.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import hmac
import re
import secrets
import unicodedata
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import TypeAlias

#: Returns a user's password or token by name, None for an unknown user. No function at all: accept anyone.
Users: TypeAlias = Callable[[str], str | None] | None

#: Yields challenges, is sent responses, both as octets without base64; raises MalformedResponse.
Exchange: TypeAlias = Generator[bytes, bytes, "Outcome"]


class MalformedResponse(ValueError):  # noqa: N818
    """The client's response does not follow the grammar of the mechanism: 501 5.5.2."""


@dataclass(frozen=True, slots=True)
class Identity:
    """What a client claims to be.

    `user` is the authentication identity, "" where OAUTHBEARER leaves it to the token. `authzid` is whom the
    client wants to act as, "" if it did not say. `password` is the password or token as it was sent; None
    where the mechanism does not reveal it.
    """

    mechanism: str
    user: str
    authzid: str = ""
    password: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an exchange ended: who it was about, and whether the claim is true."""

    identity: Identity
    accepted: bool


@dataclass(frozen=True, slots=True)
class Mechanism:
    """A SASL mechanism (RFC 4422 5).

    `exchange` takes the users and the initial response: None if there was none, b"" for an empty one ("=").
    Without `client_first` an initial response is malformed (RFC 4954 4). A `plaintext` mechanism reveals the
    password or token to a listener, so it needs TLS. One that `needs_password` refuses everybody if it is
    not given users, and should not be offered then.
    """

    name: str
    exchange: Callable[[Users, bytes | None], Exchange]
    client_first: bool = True
    plaintext: bool = False
    needs_password: bool = False


def _decode(response: bytes) -> str:
    try:
        return response.decode()
    except UnicodeDecodeError:
        msg = "the response is not UTF-8"
        raise MalformedResponse(msg) from None


def _match(pattern: str, response: bytes) -> re.Match[str]:
    match = re.fullmatch(pattern, _decode(response))
    if match is None:
        # The response stays out of the message, which may be logged: it may hold a password.
        msg = "the response does not follow the grammar of the mechanism"
        raise MalformedResponse(msg)
    return match


def _prepare(password: str) -> bytes:
    """Prepare a password for comparison, roughly as SASLprep does (RFC 4013).

    That is the normalization of Unicode (NFKC), without the characters that SASLprep drops or prohibits.
    """
    return unicodedata.normalize("NFKC", password).encode()


def _is_password(users: Users, user: str, given: str) -> bool:
    if users is None:
        return True
    password = users(user)
    # An unknown user is compared too, and then refused, so that it takes as long as a known one.
    same = hmac.compare_digest(_prepare(password or ""), _prepare(given))
    return same and password is not None


# An empty password is left to the comparison: clients send one when they are set up wrongly, and what their
# authors want to see then is a refusal, not a syntax error.
_PLAIN = r"(?P<authzid>[^\0]*)\0(?P<user>[^\0]+)\0(?P<password>[^\0]*)"


def plain(users: Users, initial: bytes | None) -> Exchange:
    """Run PLAIN (RFC 4616): authorization identity, user and password, parted by NUL."""
    match = _match(_PLAIN, (yield b"") if initial is None else initial)
    identity = Identity("PLAIN", **match.groupdict())
    return Outcome(identity, _is_password(users, match["user"], match["password"]))


_USER = r"[^\0]+"


def login(users: Users, initial: bytes | None) -> Exchange:
    """Run LOGIN (draft-murchison-sasl-login): it asks for the user, unless told already, and the password."""
    user = _match(_USER, (yield b"Username:") if initial is None else initial)[0]
    password = _decode((yield b"Password:"))
    return Outcome(Identity("LOGIN", user, password=password), _is_password(users, user, password))


_CRAM = r"(?P<user>[^\0]+) (?P<digest>[0-9a-f]{32})"


def cram_md5(users: Users, initial: bytes | None, *, challenge: bytes | None = None) -> Exchange:
    """Run CRAM-MD5 (RFC 2195): the client answers a challenge with its keyed MD5; `challenge` is for tests."""
    if initial is not None:
        msg = "CRAM-MD5 begins with the server, there is no initial response"
        raise MalformedResponse(msg)
    challenge = challenge or f"<{secrets.token_hex(16)}@localhost>".encode()
    # The last space parts them: names may have spaces, digests don't.
    match = _match(_CRAM, (yield challenge))
    identity = Identity("CRAM-MD5", match["user"])
    if users is None:
        return Outcome(identity, accepted=True)
    password = users(identity.user)
    # HMAC does not need from MD5 what MD5 has lost; this keeps it working where MD5 is disabled (FIPS).
    md5 = functools.partial(hashlib.md5, usedforsecurity=False)
    digest = hmac.new((password or "").encode(), challenge, md5).hexdigest()
    same = hmac.compare_digest(digest.encode(), match["digest"].encode())
    return Outcome(identity, same and password is not None)


# Any visible ASCII is a token, more than RFC 6750 2.1 allows: tests make up their own.
_BEARER = r"(?i:bearer) +(?P<token>[!-~]+)"
_XOAUTH2 = rf"user=(?P<user>[^\0\x01]+)\x01auth={_BEARER}\x01\x01"
_XOAUTH2_ERROR = b'{"status":"401","schemes":"Bearer","scope":"https://mail.google.com/"}'


def xoauth2(users: Users, initial: bytes | None) -> Exchange:
    """Run XOAUTH2 (https://developers.google.com/workspace/gmail/imap/xoauth2-protocol): a user and a token."""
    match = _match(_XOAUTH2, (yield b"") if initial is None else initial)
    identity = Identity("XOAUTH2", match["user"], password=match["token"])
    return (yield from _check_token(users, identity, _XOAUTH2_ERROR))


def _check_token(users: Users, identity: Identity, error: bytes) -> Exchange:
    token = identity.password
    accepted = token is not None and _is_password(users, identity.user, token)
    if not accepted:
        # The reason comes as a challenge. Whatever the client says to it, the exchange has failed.
        yield error
    return Outcome(identity, accepted)


# RFC 5801 4: saslname, gs2-header.
_SASLNAME = r"(?:[^\0,=]|=2C|=3D)+"
_GS2_HEADER = rf"(?P<header>(?P<flag>[ny]|p=[A-Za-z0-9.-]+),(?:a=(?P<authzid>{_SASLNAME}))?,)"


def _unescape(saslname: str | None) -> str:
    return (saslname or "").replace("=2C", ",").replace("=3D", "=")


_OAUTHBEARER = rf"{_GS2_HEADER}\x01(?P<pairs>(?:[A-Za-z]+=[\t\r\n -~]*\x01)*)\x01"
_OAUTHBEARER_AUTH = rf"{_BEARER} *"
_OAUTHBEARER_ERROR = b'{"status":"invalid_token"}'


def oauthbearer(users: Users, initial: bytes | None) -> Exchange:
    """Run OAUTHBEARER (RFC 7628): a token, and perhaps a user; to an error the client answers with 0x01."""
    match = _match(_OAUTHBEARER, (yield b"") if initial is None else initial)
    pairs = dict(pair.split("=", 1) for pair in match["pairs"].split("\x01")[:-1])
    if "auth" not in pairs:
        msg = "the response lacks auth="
        raise MalformedResponse(msg)
    # There is no channel to bind to ("p"), and there are no schemes but Bearer: both mean no valid token.
    auth = None if match["flag"].startswith("p") else re.fullmatch(_OAUTHBEARER_AUTH, pairs["auth"])
    # Only the token says who the user is; the authorization identity is the one name that a client gives.
    identity = Identity("OAUTHBEARER", _unescape(match["authzid"]), password=auth and auth["token"])
    return (yield from _check_token(users, identity, _OAUTHBEARER_ERROR))


# RFC 5802 7. Its "m=", an extension that a server must know, is none of these, which is failure enough.
_NONCE = r"(?P<nonce>[!-+\--~]+)"
_EXTENSIONS = r"(?:,[A-Za-z]=[^\0,]+)*"
_BASE64 = r"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{3}=|[A-Za-z0-9+/]{2}==)?"
_SCRAM_FIRST = rf"{_GS2_HEADER}(?P<bare>n=(?P<user>{_SASLNAME}),r={_NONCE}{_EXTENSIONS})"
_SCRAM_FINAL = rf"(?P<without_proof>c=(?P<binding>{_BASE64}),r={_NONCE}{_EXTENSIONS}),p=(?P<proof>{_BASE64})"
# RFC 7677 4: at least 4096.
_ITERATIONS = 4096


def scram_sha_256(
    users: Users, initial: bytes | None, *, nonce: str | None = None, salt: bytes | None = None
) -> Exchange:
    """Run SCRAM-SHA-256 (RFC 5802, 7677): both sides prove that they know the password, neither reveals it.

    A failure has no server-final-message, just the reply to AUTH. `nonce`, the server's part of it, and
    `salt` are for tests.
    """
    first = _match(_SCRAM_FIRST, (yield b"") if initial is None else initial)
    identity = Identity("SCRAM-SHA-256", _unescape(first["user"]), _unescape(first["authzid"]))
    if first["flag"].startswith("p"):
        # Channel binding is for SCRAM-SHA-256-PLUS (RFC 5802 6).
        return Outcome(identity, accepted=False)
    nonce = first["nonce"] + (nonce or secrets.token_urlsafe(18))
    # Salts are for stored passwords, which are none of ours. This one is always the same for the same name,
    # known or not, so it tells nobody who is known.
    salt = salt or hashlib.sha256(identity.user.encode()).digest()[:16]
    server_first = f"r={nonce},s={_base64(salt)},i={_ITERATIONS}"
    final = _match(_SCRAM_FINAL, (yield server_first.encode()))
    password = None if users is None else users(identity.user)
    proof, signature = _scram_sign(password or "", salt, f"{first['bare']},{server_first},{final['without_proof']}")
    same = hmac.compare_digest(proof.encode(), final["proof"].encode())
    # Same nonce, same header: the messages belong together, and nobody has changed "y" to "n" on the way.
    related = final["nonce"] == nonce and final["binding"] == _base64(first["header"].encode())
    if not (same and related and password is not None):
        return Outcome(identity, accepted=False)
    if (yield f"v={signature}".encode()):
        msg = "the response to the server's signature is empty"  # RFC 4954 4
        raise MalformedResponse(msg)
    return Outcome(identity, accepted=True)


def _scram_sign(password: str, salt: bytes, auth_message: str) -> tuple[str, str]:
    """Compute ClientProof and ServerSignature in base64 (RFC 5802 3)."""
    message = auth_message.encode()
    salted_password = hashlib.pbkdf2_hmac("sha256", _prepare(password), salt, _ITERATIONS)
    client_key = hmac.digest(salted_password, b"Client Key", "sha256")
    client_signature = hmac.digest(hashlib.sha256(client_key).digest(), message, "sha256")
    proof = bytes(one ^ other for one, other in zip(client_key, client_signature, strict=True))
    server_key = hmac.digest(salted_password, b"Server Key", "sha256")
    return _base64(proof), _base64(hmac.digest(server_key, message, "sha256"))


def _base64(octets: bytes) -> str:
    return base64.b64encode(octets).decode("ascii")


#: The mechanisms by name, in the order in which servers should list them: the strongest first.
MECHANISMS: dict[str, Mechanism] = {
    mechanism.name: mechanism
    for mechanism in (
        Mechanism("SCRAM-SHA-256", scram_sha_256, needs_password=True),
        Mechanism("CRAM-MD5", cram_md5, client_first=False),
        Mechanism("PLAIN", plain, plaintext=True),
        Mechanism("LOGIN", login, plaintext=True),
        Mechanism("OAUTHBEARER", oauthbearer, plaintext=True),
        Mechanism("XOAUTH2", xoauth2, plaintext=True),
    )
}
