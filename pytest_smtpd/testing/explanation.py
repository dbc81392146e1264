"""Explanations: what happened on a server, beside the messages that it has, for people whose test has failed."""

from __future__ import annotations

import re
import traceback
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pytest_smtpd.protocol.commands import Helo, Quit, Rset
from pytest_smtpd.protocol.events import Connect
from pytest_smtpd.protocol.mail import Content, Mail, Rcpt
from pytest_smtpd.protocol.starttls import StartTls

from .dialogue import Remark
from .shown import LONGEST_ADDRESS, MAX_LISTED, format_envelope, shorten

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from types import TracebackType

    from pytest_smtpd.protocol.replies import Reply

    from .dialogue import Dialogue, Exchange

#: How many exceptions are told with their traceback.
MAX_ERRORS = 5
#: How long a line may be.
MAX_WIDTH = 500
#: How many dialogues a report shows, the last ones, and how many lines of each, the last ones, too.
MAX_SHOWN_DIALOGUES, MAX_LINES = 5, 60

#: What the first of several lines of a reply has behind its code.
_MORE_LINES = r"^((?:S: )?[0-9]{3})-"

#: The modules that call hooks, and keep what these raise.
_CALLERS_OF_HOOKS = {"pytest_smtpd.smtpd.channel", "pytest_smtpd.network.loop"}


def format_peer(peer: Sequence[Any]) -> str:
    """Return a client's address as host:port; one of a Unix socket has none."""
    host = shorten(f"[{peer[0]}]" if ":" in peer[0] else peer[0], MAX_WIDTH)
    return f"{host}:{peer[1]}" if host else "a local client"


class Section:
    """Things of a kind, of which the first ones are listed under a title; no line if there are none."""

    def __init__(self, title: str, items: Iterable[object] = ()) -> None:
        self._title = title
        self._count = 0
        self._listed: list[str] = []
        for item in items:
            self.add(str, item)

    def add(self, describe: Callable[..., str], *what: object) -> None:
        """Add one; it is described only if it is listed, as there may be a million."""
        self._count += 1
        if self._count <= MAX_LISTED:
            self._listed.append(shorten(describe(*what), MAX_WIDTH))

    @property
    def lines(self) -> list[str]:
        """The title with their number, and a line each."""
        if not self._count:
            return []
        more = [f"  … and {self._count - MAX_LISTED} more"] if self._count > MAX_LISTED else []
        return [f"{self._title}: {self._count}", *(f"  {item}" for item in self._listed), *more]


class Incidents:
    """What did not become a message, as the dialogues show it; each session is told of once."""

    def __init__(self, dialogues: Iterable[Dialogue]) -> None:
        self._refused_recipients = Section("Recipients refused")
        self._refused_messages = Section("Messages refused")
        self._aborted = Section("Transactions begun and not completed")
        self._tls_failures = Section("TLS connections that failed")
        self._others = Section("Sessions without a message")
        for dialogue in dialogues:
            self._look_at(dialogue)

    @property
    def lines(self) -> list[str]:
        """What happened, for people."""
        sections = [
            self._refused_recipients,
            self._refused_messages,
            self._aborted,
            self._tls_failures,
            self._others,
        ]
        return [line for section in sections for line in section.lines]

    def _look_at(self, dialogue: Dialogue) -> None:
        envelope = _Envelope()
        is_told = False
        for exchange in dialogue.exchanges:
            envelope.follow(exchange)
            is_told |= self._tell(dialogue, exchange, envelope)
        if envelope.is_open and dialogue.ended and (envelope.rcpttos or not is_told):
            self._aborted.add(_describe_aborted, dialogue, envelope)
        elif not is_told:
            self._others.add(describe_session, dialogue)

    def _tell(self, dialogue: Dialogue, exchange: Exchange, envelope: _Envelope) -> bool:
        """Add what this exchange tells, and say whether that is why there is a message, or none."""
        _, said, reply = exchange
        match said:
            case Rcpt() if reply is not None and reply.is_negative:
                self._refused_recipients.add(_describe_refusal, said, envelope, reply)
            case Content() if reply is not None and reply.is_negative:
                self._refused_messages.add(_describe_refusal, None, envelope, reply)
            case Remark(is_failure=True):
                self._tls_failures.add(_describe_failure, dialogue, said)
            case _:
                return isinstance(said, Content) and reply is not None
        return True


@dataclass(slots=True)
class _Envelope:
    """The envelope of the transaction that a dialogue is about, up to some exchange."""

    mailfrom: str = ""
    rcpttos: list[str] = field(default_factory=list)
    is_open: bool = False

    def follow(self, exchange: Exchange) -> None:
        """Take what was accepted in one more exchange."""
        _, said, reply = exchange
        is_positive = reply is not None and reply.is_positive
        match said:
            case Mail() if is_positive:
                self.mailfrom, self.rcpttos, self.is_open = said.accepted_path.mailbox, [], True
            case Rcpt() if is_positive:
                self.rcpttos.append(said.accepted_path.mailbox)
            case Content() if reply is not None:
                self.is_open = False
            case Rset() | Helo() | StartTls() if is_positive:
                self.is_open = False


def _describe_refusal(recipient: Rcpt | None, envelope: _Envelope, reply: Reply) -> str:
    if recipient is None:
        return f"{format_envelope(envelope.mailfrom, envelope.rcpttos)}: {_format(reply)}"
    address, mailfrom = (
        shorten(text, LONGEST_ADDRESS) for text in (recipient.accepted_path.mailbox, envelope.mailfrom)
    )
    return f"<{address}>, mail from <{mailfrom}>: {_format(reply)}"


def _describe_aborted(dialogue: Dialogue, envelope: _Envelope) -> str:
    return f"{format_envelope(envelope.mailfrom, envelope.rcpttos)}, ended after {_describe_last(dialogue)}"


def _describe_failure(dialogue: Dialogue, failure: Remark) -> str:
    return f"{format_peer(dialogue.peer)}: {failure.said}"


def describe_session(dialogue: Dialogue) -> str:
    """Say who it was, what was said last, and whether the client is there still."""
    presence = "" if dialogue.ended else " (still connected)"
    return f"{format_peer(dialogue.peer)}{presence}: {_describe_last(dialogue)}"


def _describe_last(dialogue: Dialogue) -> str:
    """Return what was refused last, or if nothing was, what was said last: what ends a session is not why it ends."""
    told = [exchange for exchange in dialogue.exchanges if not isinstance(exchange[1], (Connect, Quit, Rset))]
    refused = [exchange for exchange in told if exchange[2] is not None and exchange[2].is_negative]
    commands = [exchange for exchange in told if exchange[1].said and not isinstance(exchange[1], Remark)]
    if not (refused or commands):
        return "the client said nothing"
    lines = list(dialogue.format_exchange(*(refused or commands)[-1]))
    said = [line.format() for line in lines if line.speaker == "C"]
    answer = next((line.format() for line in lines if line.speaker == "S"), "and no answer")
    return ", ".join([*said, re.sub(_MORE_LINES, r"\1 ", answer)])


def _format(reply: Reply) -> str:
    """Return the first line of a reply; what a rule answers may be any octets, or none."""
    text = reply.to_bytes(enhanced=True).decode("utf-8", "backslashreplace")
    return re.sub(_MORE_LINES, r"\1 ", next(iter(text.splitlines()), ""))


def format_dialogues(dialogues: Sequence[Dialogue]) -> list[str]:
    """Return the last dialogues, each line with its time in seconds."""
    left_out = len(dialogues) - MAX_SHOWN_DIALOGUES
    lines = [f"({left_out} earlier dialogues are left out)"] if left_out > 0 else []
    for dialogue in dialogues[-MAX_SHOWN_DIALOGUES:]:
        said = dialogue.lines
        lines.append(f"Dialogue with {format_peer(dialogue.peer)}:")
        lines += ["  …"] if len(said) > MAX_LINES else []
        lines += [f"  {line.seconds:7.3f} {shorten(line.format(), MAX_WIDTH)}" for line in said[-MAX_LINES:]]
    return lines


def format_errors(errors: Sequence[BaseException]) -> list[str]:
    """Return the tracebacks of what hooks have raised: of the first ones, and of each the end."""
    lines = []
    for error in errors[:MAX_ERRORS]:
        traced = "".join(traceback.format_exception(type(error), error, _hook_traceback(error))).splitlines()
        lines += ["…"] if len(traced) > MAX_LINES else []
        lines += [shorten(line, MAX_WIDTH) for line in traced[-MAX_LINES:]]
    return [*lines, f"… and {len(errors) - MAX_ERRORS} more"] if len(errors) > MAX_ERRORS else lines


def _hook_traceback(error: BaseException) -> TracebackType | None:
    """Return the traceback from where a hook was called, without where it was raised once more to fail a test."""
    entry = error.__traceback__
    while entry is not None and entry.tb_frame.f_globals.get("__name__") not in _CALLERS_OF_HOOKS:
        entry = entry.tb_next
    return entry or error.__traceback__
