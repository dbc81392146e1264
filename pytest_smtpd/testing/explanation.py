"""Explanations: what happened on a server, beside the messages that it has, for people whose test has failed."""

from __future__ import annotations

import traceback
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pytest_smtpd.protocol.mail import Mail, Rcpt

from .dialogue import Remark

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pytest_smtpd.protocol.replies import Reply

    from .dialogue import Dialogue

#: How many things of a kind are listed.
MAX_LISTED = 20
#: How many dialogues a report shows, the last ones, and how many lines of each, the last ones, too.
MAX_DIALOGUES, MAX_LINES = 5, 60


def format_envelope(mailfrom: str, rcpttos: Iterable[str]) -> str:
    """Return an envelope in one line."""
    return f"from <{mailfrom}> to {', '.join(f'<{address}>' for address in rcpttos) or 'nobody'}"


def format_peer(peer: Sequence[object]) -> str:
    """Return a client's address as host:port."""
    host = f"[{peer[0]}]" if ":" in str(peer[0]) else peer[0]
    return f"{host}:{peer[1]}"


def list_section(title: str, items: Sequence[object]) -> list[str]:
    """Return a title with the number of things, and the things indented, unless there are none."""
    if not items:
        return []
    lines = [f"{title}: {len(items)}", *(f"  {item}" for item in items[:MAX_LISTED])]
    return [*lines, f"  … and {len(items) - MAX_LISTED} more"] if len(items) > MAX_LISTED else lines


@dataclass(slots=True)
class Incidents:
    """What did not become a message, as the dialogues show it."""

    refused_recipients: list[str] = field(default_factory=list)
    refused_messages: list[str] = field(default_factory=list)
    fruitless_sessions: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, dialogues: Iterable[Dialogue]) -> Incidents:
        """Collect what happened in these dialogues."""
        incidents = cls()
        for dialogue in dialogues:
            incidents._look_at(dialogue)
        return incidents

    def _look_at(self, dialogue: Dialogue) -> None:
        delivered = False
        mailfrom = ""
        rcpttos: list[str] = []
        for _, said, reply in dialogue.exchanges:
            match said, reply is not None and reply.is_positive:
                case Mail(), True:
                    mailfrom, rcpttos = said.accepted_path.mailbox, []
                case Rcpt(), True:
                    rcpttos.append(said.accepted_path.mailbox)
                case Rcpt(), False:
                    address = said.accepted_path.mailbox
                    self.refused_recipients.append(f"<{address}>, mail from <{mailfrom}>: {_format(reply)}")
                case Remark(is_content=True), True:
                    delivered = True
                case Remark(is_content=True), False:
                    self.refused_messages.append(f"{format_envelope(mailfrom, rcpttos)}: {_format(reply)}")
        if not delivered:
            self.fruitless_sessions.append(_describe(dialogue))

    @property
    def lines(self) -> list[str]:
        """What happened, for people."""
        return [
            *list_section("Recipients refused", self.refused_recipients),
            *list_section("Messages refused", self.refused_messages),
            *list_section("Sessions without a message", self.fruitless_sessions),
        ]


def _format(reply: Reply | None) -> str:
    # What a rule answers may be any octets, or none.
    octets = reply.to_bytes(enhanced=True) if reply else b""
    return next(iter(octets.decode("utf-8", "backslashreplace").splitlines()), "no answer")


def _describe(dialogue: Dialogue) -> str:
    """Say who it was, what was said last, and whether the client is there still."""
    lines = dialogue.lines
    # QUIT ends whatever has gone wrong before.
    commands = [index for index, line in enumerate(lines) if line.speaker == "C" and line.text.upper() != "QUIT"]
    said = [line.format() for line in lines[commands[-1] :] if line.speaker][:2] if commands else []
    said = said or [line.format() for line in lines[-1:]]
    return " ".join([f"{format_peer(dialogue.peer)}{'' if dialogue.ended else ' (still connected)'}", *said])


def format_dialogues(dialogues: Sequence[Dialogue]) -> list[str]:
    """Return the last dialogues, each line with its time in seconds."""
    left_out = len(dialogues) - MAX_DIALOGUES
    lines = [f"({left_out} earlier dialogues are left out)"] if left_out > 0 else []
    for dialogue in dialogues[-MAX_DIALOGUES:]:
        said = dialogue.lines
        lines.append(f"Dialogue with {format_peer(dialogue.peer)}:")
        lines += ["  …"] if len(said) > MAX_LINES else []
        lines += [f"  {line.seconds:7.3f} {line.format()}" for line in said[-MAX_LINES:]]
    return lines


def format_errors(errors: Sequence[BaseException]) -> list[str]:
    """Return the tracebacks of what hooks have raised."""
    return [line for error in errors for line in "".join(traceback.format_exception(error)).splitlines()]
