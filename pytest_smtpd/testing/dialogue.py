"""Dialogue: who said what and when, in the notation of RFC 5321 appendix D."""

from __future__ import annotations

import re
from collections import deque
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self, TypeAlias

from pytest_smtpd.protocol.auth import MECHANISM_NAMES

from .shown import shorten

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_smtpd.protocol.events import Event
    from pytest_smtpd.protocol.replies import Reply

#: What of an AUTH command everybody may see.
_AUTH = rf"(?i)AUTH ((?:{'|'.join(MECHANISM_NAMES)}) )?"

#: How many dialogues are kept, the last ones.
MAX_DIALOGUES = 1000
#: How many commands of a session are kept, the last ones: no client fills the memory.
MAX_EXCHANGES = 1000


class Line(NamedTuple):
    """One line of a dialogue.

    `speaker` is "C" for the client, "S" for the server, "" for what happened to the connection; `seconds`
    tell when, since the connection was made, for an answer when it was asked for, or when it came if that was put off;
    `secret` tells whether the text reveals a password or token.
    """

    seconds: float
    speaker: str
    text: str
    secret: bool = False

    def format(self, *, secrets: bool = False) -> str:
        """Return the line in RFC notation, with passwords only if they are asked for.

        What is not printable is escaped: clients may send what a terminal takes for a command.
        """
        text = shorten(self.text, len(self.text))
        if self.secret and not secrets:
            match = re.match(_AUTH, text)
            text = f"{match[0]}****" if match else "****"
        return f"{self.speaker}: {text}" if self.speaker else f"   ({text})"


class Remark:
    """What stands in a dialogue where there is no event. `is_failure`: whether it is what ended the connection."""

    __slots__ = ("is_failure", "said")
    secret: ClassVar[bool] = False
    enhanced: ClassVar[bool] = True

    def __init__(self, said: str, *, is_failure: bool = False) -> None:
        self.said = said
        self.is_failure = is_failure


#: When something was said, what, and what was answered; None: nothing was, or it is no question. Events of content
#: are to be without it by the time that they are answered: who keeps the event keeps all of its octets.
Exchange: TypeAlias = "tuple[float, Event | Remark, Reply | None]"


class Dialogue:
    """What was said in a session, from one connection or, on a connection that was kept, from one test.

    Content stands there with its size only. Nothing is formatted before somebody looks.
    """

    def __init__(self, peer: tuple[Any, ...], began: float, *, enhanced: bool) -> None:
        #: The client's address, (host, port, ...).
        self.peer = peer
        #: Whether the connection is closed.
        self.ended = False
        self._began = began
        self._enhanced = enhanced
        # One behind the other, as what is in a tuple each costs the garbage collector more than all the rest.
        self._exchanges: deque[Any] = deque(maxlen=MAX_EXCHANGES * 3)
        #: Adds what was said.
        self.add: Callable[[Exchange], None] = self._exchanges.extend

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        # `add` is of the very deque. What is in it changes no more.
        copied = type(self)(self.peer, self._began, enhanced=self._enhanced)
        copied.ended = self.ended
        copied._exchanges.extend(self._exchanges)  # noqa: SLF001 - its own kind
        return copied

    def remark(self, now: float, text: str, *, is_failure: bool = False) -> None:
        """Add what happened to the connection."""
        self.add((now, Remark(text, is_failure=is_failure), None))

    @property
    def exchanges(self) -> list[Exchange]:
        """The exchanges so far, the last ones if there are many."""
        parts = iter(list(self._exchanges))
        return list(zip(parts, parts, parts, strict=True))

    @property
    def lines(self) -> list[Line]:
        """The dialogue so far, line by line."""
        return [line for exchange in self.exchanges for line in self.format_exchange(*exchange)]

    def format_exchange(self, when: float, said: Event | Remark, reply: Reply | None) -> Iterator[Line]:
        """Yield the lines of an exchange."""
        seconds = when - self._began
        if reply is None and isinstance(said, Remark):
            yield Line(seconds, "", said.said)
        elif said.said:
            yield Line(seconds, "C", said.said, said.secret)
        if reply is not None:
            octets = reply.to_bytes(enhanced=self._enhanced and said.enhanced)
            for line in octets.decode("utf-8", "backslashreplace").splitlines():
                yield Line(seconds, "S", line)

    def format(self, *, secrets: bool = False) -> str:
        """Return the dialogue in RFC notation; passwords and tokens are masked unless `secrets` is true."""
        return "\n".join(line.format(secrets=secrets) for line in self.lines)

    def __str__(self) -> str:
        return self.format()

    def __repr__(self) -> str:
        return f"<Dialogue with {self.peer[0]}: {len(self.exchanges)} exchanges>"
