"""Actions: what a rule does to one event, step by step, in the serving thread."""

from __future__ import annotations

import contextlib
import re
import socket
import struct
import threading
from enum import Enum
from typing import TYPE_CHECKING, Protocol, TypeAlias

from pytest_smtpd.protocol.replies import NEGATIVE, RawReply, Reply

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from pytest_smtpd.network.connection import Connection, Timer


class _Wait(Enum):
    WAIT = "WAIT"


#: What an action returns when the script goes on later, by `Run.resume`.
WAIT = _Wait.WAIT

#: One step of a script.
Action: TypeAlias = "Callable[[Run], _Wait | None]"

#: The codes, beside negative ones, that a client can make sense of (RFC 5321 4.3.2, RFC 3207 4, RFC 4954 6).
_POSITIVE: dict[str, tuple[int, ...]] = {
    "CONNECT": (220,),
    "DATA": (354,),
    "QUIT": (221,),
    "STARTTLS": (220,),
    "AUTH": (235, 334),
    "RCPT": (250, 251),
    "VRFY": (250, 251, 252),
    "HELP": (211, 214),
}
#: The verbs whose positive answer is 250, and that of no other.
_ANSWERED_250 = frozenset({"EHLO", "HELO", "LHLO", "MAIL", "RSET", "NOOP", "BDAT", "EXPN", "CONTENT"})
_ACCEPTED = {"CONNECT": "localhost ESMTP", "DATA": "End data with <CR><LF>.<CR><LF>", "QUIT": "Bye"}
_REJECTIONS = {
    "CONNECT": Reply(554, "No SMTP service here", "5.3.2"),
    "RCPT": Reply(550, "No such user here", "5.1.1"),
    "DATA": Reply(554, "Transaction failed", "5.0.0"),
    "CONTENT": Reply(554, "Message refused", "5.7.1"),
    "AUTH": Reply(535, "Authentication credentials invalid", "5.7.8"),
    "STARTTLS": Reply(502, "STARTTLS not implemented", "5.5.1"),
    "": Reply(550, "Requested action not taken", "5.0.0"),
}
_DEFERRALS = {
    "CONNECT": Reply(421, "Service not available, try again later", "4.3.2"),
    "RCPT": Reply(450, "Mailbox busy, try again later", "4.2.1"),
    "AUTH": Reply(454, "Temporary authentication failure", "4.7.0"),
    "STARTTLS": Reply(454, "TLS not available due to temporary reason", "4.7.0"),
    "": Reply(451, "Requested action aborted, try again later", "4.3.0"),
}
_CODE = r"([2-5][0-9]{2})(?: |\Z)"
_ENHANCED = r"([245]\.[0-9]{1,3}\.[0-9]{1,3})(?: |\Z)"


class Channel(Protocol):
    """What actions need of the channel on which they act."""

    conn: Connection

    @property
    def has_ended(self) -> bool:
        """Whether nothing is to be sent any more."""

    def flush(self) -> None:
        """Send the answers so far."""

    def hang_up(self, remark: str, *, abort: bool = False) -> None:
        """Close the connection, or reset it, behind the answers so far."""


class Occasion(Protocol):
    """That to which a rule applies: a question of the client's, a handshake, content that arrives."""

    @property
    def channel(self) -> Channel:
        """Where."""

    def store(self) -> None:
        """Record the message now."""

    def drop(self) -> None:
        """See to it that the message is not recorded."""

    def usual_reply(self) -> Reply | None:
        """Return what is answered where no rule applies; None: nothing, or it comes later."""

    def acceptance(self) -> Reply | None:
        """Return the answer of who accepts whatever comes; None: there is none, things go on."""

    def octets_of(self, reply: Reply) -> bytes:
        """Return a reply as it is sent."""

    def settle(self, reply: Reply | None, sent: Reply | None) -> None:
        """Answer with `sent`, which is `reply` or the rest of it; None: go on as usual."""


class Gate:
    """Where runs wait until it is opened."""

    def __init__(self) -> None:
        #: Set when a run has come here.
        self.reached = threading.Event()
        self._open = False
        self._held: list[Run] = []

    def hold(self, run: Run) -> _Wait | None:
        """Have a run wait here, unless the gate is open."""
        self.reached.set()
        if self._open:
            return None
        self._held.append(run)
        return WAIT

    def open(self) -> None:
        """Let all go on who are here, and all who come yet; in the serving thread."""
        self._open = True
        held, self._held = self._held, []
        for run in held:
            run.resume()


class Run:
    """One application of a rule: goes through its script, and answers at the end."""

    def __init__(self, script: Iterable[Action], occasion: Occasion) -> None:
        self.occasion = occasion
        self.channel = occasion.channel
        self._script = iter(script)
        #: Whether it waits: for time to go by, for a gate, or for nothing.
        self.waits = False
        #: The answer that was chosen; None: the usual one.
        self.reply: Reply | None = None
        #: Cuts the octets of the answer into pieces; and the seconds between two of them.
        self.cut: Callable[[bytes], Iterator[bytes]] | None = None
        self.pause = 0.0
        #: Ends the connection behind the answer, if there is one.
        self.ending: Callable[[Channel], None] | None = None
        #: Whether a part of the answer is sent, and another is not.
        self.is_amid_answer = False
        #: Whether the usual answer comes later, by a hook that may block.
        self.awaits_answer = False
        self._timer: Timer | None = None

    def resume(self) -> None:
        """Go on until the script waits or ends; then answer."""
        if self.channel.has_ended:
            return
        self.waits = any(action(self) is WAIT for action in self._script)
        if not self.waits:
            self._finish()

    def resume_in(self, seconds: float) -> None:
        """Go on after so many seconds."""
        self._timer = self.channel.conn.call_later(seconds, self.resume)

    def cancel(self) -> None:
        """Go on no more: the connection is closed."""
        if self._timer is not None:
            self._timer.cancel()
        self._let_go()

    def _let_go(self) -> None:
        """Keep nothing of what it was about: who has a run, a channel or a gate, would keep the content, too."""
        if not self.awaits_answer:
            vars(self).pop("occasion", None)

    def _finish(self) -> None:
        if self.reply is None and self.ending is not None:
            self.ending(self.channel)
            self._let_go()
            return
        self.send(self.reply or self.occasion.usual_reply())

    def send(self, reply: Reply | None) -> None:
        """Answer, in pieces if that was said; None: the answer comes later."""
        self.awaits_answer = reply is None
        if reply is None or self.cut is None:
            self._answer(reply, reply)
        else:
            self.channel.flush()
            pieces = self.cut(self.occasion.octets_of(reply))
            self._send_pieces(reply, next(pieces, b""), pieces)

    def _send_pieces(self, reply: Reply, piece: bytes, pieces: Iterator[bytes]) -> None:
        """Send one piece after the other; with the last one the question is answered."""
        if self.channel.has_ended:
            return
        following = next(pieces, b"")
        self.waits = self.is_amid_answer = bool(following)
        if following:
            self.channel.conn.write(piece)
            self._timer = self.channel.conn.call_later(self.pause, lambda: self._send_pieces(reply, following, pieces))
        else:
            self._answer(reply, RawReply(reply.code, octets=piece))

    def _answer(self, reply: Reply | None, sent: Reply | None) -> None:
        self.occasion.settle(reply, sent)
        if self.ending is not None:
            self.ending(self.channel)
        self._let_go()


# Answers.


def answer(stage: str, code: object, text: object, *, raw: bool) -> Action:
    """Choose an answer; raises ValueError if no client could make sense of it at this stage."""
    if not isinstance(code, int) or isinstance(code, bool):
        msg = f"reply(code, text) takes the code as a number, not {code!r}; reject() and defer() take it in the text"
        raise TypeError(msg)
    if not isinstance(text, str):
        msg = f"reply(code, text) takes a string for the text, not {text!r}"
        raise TypeError(msg)
    reply = _read_reply(code, text)
    if reply.code < NEGATIVE and not raw:
        _check_code(stage, reply.code)
    return _choose(reply)


def reject(stage: str, text: object) -> Action:
    """Choose a 5yz."""
    return _choose(_refusal(_REJECTIONS, stage, text, 5))


def defer(stage: str, text: object) -> Action:
    """Choose a 4yz."""
    return _choose(_refusal(_DEFERRALS, stage, text, 4))


def accept(run: Run) -> None:
    """Choose the positive answer."""
    run.reply = run.occasion.acceptance()


def discard(run: Run) -> None:
    """Choose a 250 for a message that is not recorded."""
    run.occasion.drop()
    accept(run)


def raw(octets: object) -> Action:
    """Choose octets for an answer."""
    if not isinstance(octets, bytes):
        msg = f"raw() takes the octets that are sent, bytes, not {octets!r}"
        raise TypeError(msg)
    code = int(octets[:3]) if re.match(rb"[2-5][0-9]{2}", octets) else 550
    return _choose(RawReply(code, octets=octets))


def store(run: Run) -> None:
    """Record the message now."""
    run.occasion.store()


def _read_reply(code: int, text: str) -> Reply:
    """Return a reply whose text may begin with an enhanced status code."""
    match = re.match(_ENHANCED, text)
    return Reply(code, text[match.end() :], match[1]) if match else Reply(code, text)


def _choose(reply: Reply) -> Action:
    def act(run: Run) -> None:
        run.reply = reply

    return act


def acceptance(stage: str) -> Reply:
    """Return a positive answer to what can't be accepted as it is."""
    return Reply(_POSITIVE.get(stage, (250,))[0], _ACCEPTED.get(stage, "OK"))


def _refusal(replies: dict[str, Reply], stage: str, text: object, kind: int) -> Reply:
    usual = replies.get(stage, replies[""])
    if not isinstance(text, str):
        msg = f"the text is a string, which may begin with a code, such as '{kind}50 No', not {text!r}"
        raise TypeError(msg)
    if not text:
        return usual
    match = re.match(_CODE, text)
    code = int(match[1]) if match else usual.code
    if code // 100 != kind:
        msg = f"{text!r} has the code {code}, where one from {kind}00 to {kind}99 is meant; reply() takes any"
        raise ValueError(msg)
    return _read_reply(code, text[match.end() :] if match else text)


def _check_code(stage: str, code: int) -> None:
    codes: Sequence[int] = _POSITIVE.get(stage, (250,) if stage in _ANSWERED_250 else range(200, 300))
    if stage == "ANY" or code not in codes:
        named = "200 to 299" if isinstance(codes, range) else ", ".join(map(str, codes))
        fitting = "" if stage == "ANY" else f"{named} and "
        msg = (
            f"{code} contradicts SMTP as an answer to {stage}, where {fitting}400 to 599 fit; raw=True sends it anyway"
        )
        raise ValueError(msg)


# Time.


def delay(seconds: float) -> Action:
    """Wait so many seconds."""
    check_positive("delay", seconds)

    def act(run: Run) -> _Wait:
        run.resume_in(seconds)
        return WAIT

    return act


def hang(run: Run) -> _Wait:  # noqa: ARG001 - an action
    """Wait for ever."""
    return WAIT


def fragment(sizes: tuple[int, ...], pause: float) -> Action:
    """Have the answer sent in pieces of these sizes."""
    if not sizes or any(not isinstance(size, int) or size < 1 for size in sizes):
        msg = f"fragment() takes sizes in octets, from 1 on, not {sizes}"
        raise ValueError(msg)
    check_positive("pause", pause)

    def cut(octets: bytes) -> Iterator[bytes]:
        left = list(sizes)
        while octets:
            size = left.pop(0) if len(left) > 1 else left[0]
            yield octets[:size]
            octets = octets[size:]

    def act(run: Run) -> None:
        run.cut, run.pause = cut, pause

    return act


def throttle(octets_per_second: float) -> Action:
    """Have the answer sent octet by octet."""
    check_positive("throttle", octets_per_second)
    return fragment((1,), 1 / octets_per_second)


def check_positive(name: str, value: float) -> None:
    """Raise ValueError for what is no number above 0."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
        msg = f"{name} takes a number above 0, not {value!r}"
        raise ValueError(msg)


# The connection.


def disconnect(run: Run) -> None:
    """Have the connection closed (FIN)."""
    run.ending = lambda channel: channel.hang_up("the server has closed the connection")


def reset(run: Run) -> None:
    """Have the connection reset (RST)."""

    def end(channel: Channel) -> None:
        with contextlib.suppress(OSError):  # the client may have gone
            channel.conn.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        channel.hang_up("the server has reset the connection", abort=True)

    run.ending = end
