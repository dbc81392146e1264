"""The catalogue: named faults, for a test that runs the code under test against one after the other.

    @pytest.mark.parametrize("fault", smtp_faults(without=["permanent", "ambiguous"]))
    def test_mail_arrives_once(smtpd_server, fault):
        fault.apply(smtpd_server)
        send_with_retries(smtpd_server.address)
        smtpd_server.assert_delivered_exactly_once()

Each is a rule in the words of `RecordingServer.on`: a stage, and a script.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from .faults import Rule
    from .message import Message
    from .recording import RecordingServer

#: What makes a rule do something.
Script: TypeAlias = "Callable[[Rule], Rule]"

#: What faults of a kind have in common, and what a good sender makes of them.
KINDS = {
    "temporary": "A refusal for now (4yz): the sender tries again later.",
    "permanent": "A refusal for good (5yz): the sender gives up, and tells somebody.",
    "disconnect": "The connection ends before the message is taken: the sender tries again.",
    "garbled": "What comes is not SMTP, and the message is not taken before it: the sender tries again.",
    "slow": "The right answer, late or in pieces: the sender waits.",
    "unusual": "A rare answer that means success: the sender goes on.",
    "goodbye": "The message is taken, and only QUIT fails: the sender does not send it again.",
    "hang": "No answer ever comes: the sender has a time limit, and tries again.",
    "ambiguous": "The message is taken, and the sender is not told: whoever tries again sends it twice.",
}

#: By how many seconds slow servers are late.
LATE = 0.2


@dataclass(frozen=True, slots=True, repr=False)
class Fault:
    """A named fault of `smtp_faults`: something that goes wrong at a server, once unless told otherwise."""

    #: Such as "rcpt-450-busy": what pytest shows in the test's name.
    name: str
    #: What a sender should make of it: one of `KINDS`, such as "temporary".
    kind: str
    #: Where in the session it happens, such as "RCPT".
    stage: str
    #: What happens, in a sentence.
    description: str
    script: Script = field(repr=False)
    #: How many octets of the content come first; None: all of it, or it happens elsewhere.
    after_bytes: int | None = None
    #: Whether the client waits for ever.
    endless: bool = False

    @property
    def __name__(self) -> str:
        """The name, where pytest looks for the ID of a parameter."""
        return self.name

    @property
    def needs(self) -> frozenset[str]:
        """What a client must do to meet it, and to survive it: "starttls", "tls", "auth", "timeout"."""
        return frozenset(filter(None, (_STAGE_NEEDS.get(self.stage), "timeout" if self.endless else None)))

    def __repr__(self) -> str:
        return f"<Fault {self.name}>"

    def apply(
        self,
        server: RecordingServer,
        match: Callable[[Message], object] | None = None,
        *,
        times: int | None = 1,
        **options: Any,
    ) -> Rule:
        """Have a server misbehave so, `times` times (None: always); return the rule, whose `hits` count.

        `match` and the other options are those of `RecordingServer.on`, such as rcpttos="bob@example.org".
        """
        return self.script(server.on(self.stage, match, after_bytes=self.after_bytes, times=times, **options))


_STAGE_NEEDS = {"STARTTLS": "starttls", "TLS": "tls", "AUTH": "auth"}

#: How descriptions call the stages.
_AT = {
    "CONNECT": "Before its greeting",
    "CONTENT": "At the end of the content",
    "TLS": "At the TLS handshake",
    **{verb: f"At {verb}" for verb in ("EHLO", "MAIL", "RCPT", "DATA", "QUIT", "STARTTLS", "AUTH")},
}


def _refusal(stage: str, cause: str, code: int, text: str, description: str) -> Fault:
    kind = "goodbye" if stage == "QUIT" else "temporary" if code < 500 else "permanent"  # noqa: PLR2004
    return Fault(f"{stage.lower()}-{code}-{cause}", kind, stage, description, lambda rule: rule.reply(code, text))


def _closed(stage: str, kind: str = "disconnect") -> Fault:
    description = f"{_AT[stage]}, the server closes the connection without a word."
    return Fault(f"{stage.lower()}-closed", kind, stage, description, lambda rule: rule.disconnect())


def _breaks(stage: str, kind: str = "disconnect") -> tuple[Fault, Fault]:
    """Return the two ways in which a connection ends."""
    description = f"{_AT[stage]}, the server resets the connection."
    reset = Fault(f"{stage.lower()}-reset", kind, stage, description, lambda rule: rule.reset())
    return _closed(stage, kind), reset


def _slow(stage: str) -> Fault:
    description = f"{_AT[stage]}, the server lets the client wait for {LATE:g} s."
    return Fault(f"{stage.lower()}-slow", "slow", stage, description, lambda rule: rule.delay(LATE))


def _hang(stage: str, kind: str = "hang") -> Fault:
    description = f"{_AT[stage]}, the server says nothing, and keeps the connection."
    return Fault(f"{stage.lower()}-hang", kind, stage, description, lambda rule: rule.hang(), endless=True)


def _raw(stage: str, name: str, octets: bytes, description: str, kind: str = "garbled") -> Fault:
    return Fault(f"{stage.lower()}-{name}", kind, stage, description, lambda rule: rule.raw(octets))


def _content(name: str, kind: str, description: str, script: Script, after_bytes: int | None = None) -> Fault:
    return Fault(f"content-{name}", kind, "CONTENT", description, script, after_bytes)


_STRANGE_EHLO = b"250-mx.example.org at your service\r\n250-X-FOO=1 bar\r\n250-AUTH=\r\n250-XYZZY\r\n250 8bitmime\r\n"
_NOISE = b"\xff\xfe\x00 !?\r\n"

_CATALOGUE: tuple[Fault, ...] = (
    # The greeting.
    _refusal("CONNECT", "too-busy", 421, "4.3.2 Too busy, try again later", "The server has too many clients."),
    _refusal("CONNECT", "blocked", 554, "5.7.1 Your address is listed", "The client's address is on a block list."),
    *_breaks("CONNECT"),
    _slow("CONNECT"),
    _raw(
        "CONNECT", "multiline", b"220-mx\r\n220-No spam\r\n220 Go ahead\r\n", "The greeting has three lines.", "unusual"
    ),
    _raw("CONNECT", "not-smtp", b"SSH-2.0-OpenSSH_9.2\r\n", "Something else than SMTP listens on the port."),
    _hang("CONNECT"),
    # EHLO.
    _refusal("EHLO", "shutting-down", 421, "4.3.2 Shutting down", "The server shuts down, and closes at EHLO."),
    Fault(
        "ehlo-502-helo-only",
        "unusual",
        "EHLO",
        "The server is so old that it knows HELO only.",
        lambda rule: rule.reply(502, "5.5.1 Command not implemented"),
    ),
    *_breaks("EHLO"),
    Fault(
        "ehlo-fragmented",
        "slow",
        "EHLO",
        "The answer to EHLO comes octet by octet.",
        lambda rule: rule.fragment(1),
    ),
    _raw("EHLO", "strange-keywords", _STRANGE_EHLO, "The server offers things that nobody has heard of.", "unusual"),
    _raw("EHLO", "noise", _NOISE, "The answer to EHLO has no code, and is no text."),
    _hang("EHLO"),
    # MAIL.
    _refusal("MAIL", "shutting-down", 421, "4.3.2 Shutting down", "The server shuts down, and closes at MAIL."),
    _refusal("MAIL", "rate-limited", 450, "4.7.1 Too much mail from you", "The client has sent too much lately."),
    _refusal("MAIL", "local-error", 451, "4.3.0 Local error in processing", "The server has a problem of its own."),
    _refusal("MAIL", "login-required", 530, "5.7.0 Authentication required", "The server wants a login first."),
    _refusal("MAIL", "sender-refused", 550, "5.7.1 Sender refused", "The server does not take the sender (SPF)."),
    _refusal("MAIL", "too-large", 552, "5.3.4 Message too big", "The announced size is too much."),
    *_breaks("MAIL"),
    _raw("MAIL", "without-text", b"250\r\n", "The answer to MAIL is a code alone.", "unusual"),
    _raw("MAIL", "bare-lf", b"250 OK\n", "The answer to MAIL ends with LF alone.", "unusual"),
    _hang("MAIL"),
    # RCPT.
    _refusal("RCPT", "shutting-down", 421, "4.3.2 Shutting down", "The server shuts down, and closes at RCPT."),
    _refusal("RCPT", "busy", 450, "4.2.1 Mailbox busy, try again later", "The recipient's mailbox is busy."),
    _refusal("RCPT", "greylisted", 451, "4.7.1 Greylisted, try again later", "The server sees whether you come back."),
    _refusal("RCPT", "mailbox-full", 452, "4.2.2 Mailbox full", "The recipient's mailbox is full for now."),
    _refusal("RCPT", "too-many", 452, "4.5.3 Too many recipients", "The recipient is one too many for this message."),
    _refusal("RCPT", "unknown-user", 550, "5.1.1 No such user here", "There is no such recipient."),
    _refusal("RCPT", "moved", 551, "5.1.6 Please try <new@example.net>", "The recipient has moved."),
    _refusal("RCPT", "over-quota", 552, "5.2.2 Quota exceeded", "The recipient's mailbox is full for good."),
    _refusal("RCPT", "relay-denied", 554, "5.7.1 Relay access denied", "The server takes no mail for that domain."),
    *_breaks("RCPT"),
    _slow("RCPT"),
    Fault(
        "rcpt-251-forwarded",
        "unusual",
        "RCPT",
        "The recipient is elsewhere, and the server forwards the mail.",
        lambda rule: rule.reply(251, "2.1.5 User not local, will forward"),
    ),
    _hang("RCPT"),
    # DATA.
    _refusal("DATA", "shutting-down", 421, "4.3.2 Shutting down", "The server shuts down, and closes at DATA."),
    _refusal("DATA", "local-error", 451, "4.3.0 Local error in processing", "The server can't take content now."),
    _refusal("DATA", "refused", 554, "5.5.1 No valid recipients", "The server does not want the content."),
    *_breaks("DATA"),
    Fault(
        "data-250-instead-of-354",
        "garbled",
        "DATA",
        "The server answers DATA as if the content had come.",
        lambda rule: rule.reply(250, "2.0.0 OK", raw=True),
    ),
    _hang("DATA"),
    # The content, while it comes.
    _content("cut-off", "disconnect", "The server closes in the midst of the content.", lambda r: r.disconnect(), 1),
    _content("cut-by-reset", "disconnect", "The server resets in the midst of the content.", lambda r: r.reset(), 1),
    _content("stalled", "slow", f"The server stops reading the content for {LATE:g} s.", lambda r: r.delay(LATE), 1),
    # The content, when it is there.
    _refusal("CONTENT", "shutting-down", 421, "4.3.2 Shutting down", "The server shuts down instead of answering."),
    _refusal("CONTENT", "local-error", 451, "4.3.0 Local error in processing", "A filter of the server has failed."),
    _refusal("CONTENT", "spam", 550, "5.7.1 This looks like spam", "The server takes the message for spam."),
    _refusal("CONTENT", "too-large", 552, "5.3.4 Message too big", "The message is too large."),
    _refusal("CONTENT", "refused", 554, "5.6.0 Message refused", "The server does not like what is in the message."),
    *_breaks("CONTENT"),
    _slow("CONTENT"),
    _content("noise", "garbled", "The answer to the content has no code, and is no text.", lambda r: r.raw(_NOISE)),
    _content("truncated", "garbled", "The answer breaks off at 45.", lambda r: r.raw(b"45").disconnect()),
    _hang("CONTENT"),
    # The message is there, and the client does not hear of it.
    _content(
        "stored-then-451",
        "ambiguous",
        "The server stores the message, and says that it could not.",
        lambda rule: rule.store().reply(451, "4.3.0 Local error in processing"),
    ),
    _content(
        "stored-then-closed",
        "ambiguous",
        "The server stores the message, and closes instead of answering.",
        lambda rule: rule.store().disconnect(),
    ),
    _content(
        "stored-then-reset",
        "ambiguous",
        "The server stores the message, and resets instead of answering.",
        lambda rule: rule.store().reset(),
    ),
    _content(
        "stored-then-noise",
        "ambiguous",
        "The server stores the message, and its answer has no code.",
        lambda rule: rule.store().raw(_NOISE),
    ),
    Fault(
        "content-stored-then-hang",
        "ambiguous",
        "CONTENT",
        "The server stores the message, and never answers.",
        lambda rule: rule.store().hang(),
        endless=True,
    ),
    # QUIT.
    _refusal("QUIT", "shutting-down", 421, "4.3.2 Shutting down", "The server shuts down at QUIT."),
    _refusal("QUIT", "refused", 500, "5.5.2 Command not recognized", "The server does not know QUIT."),
    *_breaks("QUIT", "goodbye"),
    _hang("QUIT", "goodbye"),
    # STARTTLS, and TLS itself.
    _refusal("STARTTLS", "unavailable", 454, "4.7.0 TLS not available", "The server can't do TLS for now."),
    _refusal("STARTTLS", "not-implemented", 502, "5.5.1 Not implemented", "The server offers STARTTLS, and lacks it."),
    *_breaks("STARTTLS"),
    _slow("STARTTLS"),
    _hang("STARTTLS"),
    _closed("TLS"),
    Fault(
        "tls-reset",
        "disconnect",
        "TLS",
        "In the midst of the TLS handshake, the server resets the connection.",
        # Not before it: CPython's ssl would leak the socket, which a test's warnings tell.
        lambda rule: rule.delay(LATE).reset(),
    ),
    _slow("TLS"),
    _raw("TLS", "plain-text", b"454 4.7.0 TLS not available\r\n", "The server answers the handshake in plain text."),
    _hang("TLS"),
    # AUTH.
    _refusal("AUTH", "shutting-down", 421, "4.3.2 Shutting down", "The server shuts down, and closes at AUTH."),
    _refusal("AUTH", "unavailable", 454, "4.7.0 Temporary failure", "The server can't look up passwords now."),
    _refusal("AUTH", "too-weak", 534, "5.7.9 Mechanism is too weak", "The server does not like the mechanism."),
    _refusal("AUTH", "wrong-password", 535, "5.7.8 Credentials invalid", "The password is wrong by now."),
    *_breaks("AUTH"),
    _slow("AUTH"),
    _raw("AUTH", "noise", _NOISE, "The answer to AUTH has no code, and is no text."),
    _hang("AUTH"),
)


def smtp_faults(
    *which: str,
    without: Iterable[str] = (),
    tls: Literal["starttls", "implicit"] | None = None,
    auth: bool = False,
    timeout: bool = False,
) -> list[Fault]:
    """Return faults to parametrize a test with: by default all that a simple client meets, about sixty.

    `which` and `without` have names of faults, kinds such as "temporary", or stages such as "RCPT": those
    that any of them means. What the client under test does decides what it can meet: `tls`, `auth`, and
    `timeout`, whether it gives up on a server that says nothing. A simple client says EHLO, sends content with
    DATA, and says QUIT.

    Raises ValueError for a name that means no fault, or none that such a client meets, TypeError for what is no name.
    """
    if tls not in {None, "starttls", "implicit"}:
        msg = f'tls is "starttls", "implicit" or None, not {tls!r}'
        raise ValueError(msg)
    if isinstance(without, str):
        msg = f"without takes a list of names, kinds and stages: [{without!r}]"
        raise TypeError(msg)
    does = {"starttls": tls == "starttls", "tls": tls is not None, "auth": auth, "timeout": timeout}
    met = [fault for fault in _CATALOGUE if all(does[need] for need in fault.needs)]
    chosen = [fault for name in which for fault in _find(name, met)] if which else met
    dropped = [fault for name in without for fault in _find(name, _CATALOGUE)]
    return [fault for fault in met if fault in chosen and fault not in dropped]


def _find(name: object, faults: Iterable[Fault]) -> list[Fault]:
    """Return the faults that a name, a kind or a stage means."""
    if not isinstance(name, str):
        msg = f"names, kinds and stages are strings, one by one: smtp_faults('temporary', 'RCPT'), not {name!r}"
        raise TypeError(msg)
    if found := [fault for fault in faults if name in {fault.name, fault.kind, fault.stage}]:
        return found
    if elsewhere := [fault.needs for fault in _CATALOGUE if name in {fault.name, fault.kind, fault.stage}]:
        fewest = min(elsewhere, key=len)
        needs = ", ".join(_ARGUMENTS[need] for need in sorted(fewest))
        msg = f"{name!r} is nothing for this client, unless you say {needs}"
        raise ValueError(msg)
    names = dict.fromkeys(name for fault in _CATALOGUE for name in (fault.kind, fault.stage, fault.name))
    close = [each for each in names if each.lower() == name.lower()] or difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"kinds are {', '.join(KINDS)}"
    msg = f"{name!r} is no fault, no kind and no stage of faults: {hint}"
    raise ValueError(msg)


#: What to tell `smtp_faults` of a client that does so.
_ARGUMENTS = {"starttls": 'tls="starttls"', "tls": "tls=…", "auth": "auth=True", "timeout": "timeout=True"}
