"""The trace that smtpd wrote to its DEBUGSTREAM: what each client says, and what it is answered."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from pytest_smtpd.protocol.events import Command

if TYPE_CHECKING:
    from pytest_smtpd.protocol.events import Event
    from pytest_smtpd.protocol.replies import Reply
    from pytest_smtpd.protocol.session import Session


#: Users set `DEBUGSTREAM` there, so it is looked up there whenever something may be to be written.
package: Any = sys.modules[__package__]


class Devnull:
    """A stream that drops what is written to it."""

    def write(self, msg: str) -> None:
        """Drop it."""

    def flush(self) -> None:
        """Do nothing."""


#: What `DEBUGSTREAM` is while nobody wants to see the trace.
DEVNULL = Devnull()


def trace(session: Session, peer: tuple[Any, ...], event: Event | None, reply: Reply, *, secret: bool = False) -> None:
    """Write what a client asked, if it did, and what it is answered; passwords and tokens are masked.

    `secret` masks what is no secret by the protocol, but by a subclass that reads lines itself.
    """
    said = event.said if event else ""
    if event is not None and (event.secret or secret):
        said = "AUTH ****" if event.stage == "AUTH" and isinstance(event, Command) else "****"
    enhanced = session.enhanced and (event is None or event.enhanced)
    answer = reply.to_bytes(enhanced=enhanced).decode("ascii", "backslashreplace").splitlines()
    who = ":".join(map(str, peer[:2]))
    lines = [f"C: {said}"] * bool(said) + [f"S: {line}" for line in answer]
    stream = package.DEBUGSTREAM
    stream.write("".join(f"{who} {line}\n" for line in lines).encode("ascii", "backslashreplace").decode("ascii"))
    stream.flush()
