"""What several test files use: dialogues as data, and a client that speaks in raw octets."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import threading
import tracemalloc
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from pytest_smtpd.protocol import extensions
from pytest_smtpd.protocol.mail import Content
from pytest_smtpd.protocol.session import NEED_DATA, Session
from pytest_smtpd.protocol.state import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from types import FrameType

    from _typeshed import TraceFunction

    from pytest_smtpd.protocol.lints import Lint
    from pytest_smtpd.protocol.replies import Reply

#: A session that offers everything, as RecordingServer's do.
FULL = Settings(extensions=extensions.ALL)
STRICT = Settings(extensions=extensions.ALL, strict=True)


#: Seconds that a thread has to end when it should.
THREAD_SECONDS = 10.0


@contextlib.contextmanager
def in_thread(function: Callable[[], object]) -> Iterator[threading.Thread]:
    """Have something done in another thread, which must have ended when the body has."""
    thread = threading.Thread(target=function, daemon=True)
    thread.start()
    yield thread
    thread.join(THREAD_SECONDS)
    assert not thread.is_alive()


@dataclass(frozen=True)
class Received:
    """A message that a session took: its envelope and its content."""

    mailfrom: str
    rcpttos: list[str]
    data: bytes
    lints: list[Lint] = field(compare=False)


@dataclass
class Dialogue:
    """What came of a conversation: the replies after the greeting, and the messages taken."""

    replies: list[str] = field(default_factory=list)
    messages: list[Received] = field(default_factory=list)
    lints: list[Lint] = field(default_factory=list, compare=False)
    closed: bool = False

    @property
    def codes(self) -> str:
        """The reply codes with their enhanced status codes, parted by a space: "250 2.1.0 501 5.5.4"."""
        return " ".join(_codes(reply) for reply in self.replies)


def _codes(reply: str) -> str:
    code, _, text = reply.splitlines()[-1].partition(" ")
    enhanced = text.partition(" ")[0]
    return f"{code} {enhanced}" if enhanced[:2] in {"2.", "4.", "5."} and enhanced.count(".") == 2 else code


def split_replies(octets: bytes) -> list[str]:
    """Part the octets that a server sent into replies; the lines of one reply are parted by a line feed."""
    replies: list[str] = []
    continued = False
    for line in octets.decode().removesuffix("\r\n").split("\r\n") if octets else []:
        if continued:
            replies[-1] += f"\n{line}"
        else:
            replies.append(line)
        continued = line[3:4] == "-"
    return replies


def take(content: Content) -> Received:
    """Return the message of which the last question has been decided: it is for those who were accepted."""
    transaction = content.transaction
    rcpttos = [transaction.forward_paths[index].mailbox for index in content.accepted]
    return Received(transaction.reverse_path.mailbox, rcpttos, content.data, list(transaction.lints))


def play(segments: list[bytes], settings: Settings, answers: Mapping[str, Reply]) -> Dialogue:
    """Give a session these segments one after the other; answer the stages in `answers` otherwise than usual."""
    session = Session(settings)
    greeting = session.connect()
    session.send(answers.get("CONNECT", greeting.reply))
    session.data_to_send()
    dialogue = Dialogue()
    for segment in segments:
        session.receive_data(segment)
        while (event := session.next_event()) is not NEED_DATA:
            reply = answers.get(event.stage, event.reply)
            if isinstance(event, Content) and event.decide(reply):
                dialogue.messages.append(take(event))
            session.send(reply)
            dialogue.lints += event.lints
        dialogue.replies += split_replies(session.data_to_send())
    dialogue.closed = session.state.closing
    return dialogue


def converse(
    *segments: bytes, settings: Settings = FULL, answers: Mapping[str, Reply] | None = None, split: bool = True
) -> Dialogue:
    """Play a conversation with each segment whole, and again octet by octet: both must come to the same.

    `split=False` leaves out the second where segments matter. `answers` maps stages to replies.
    """
    whole = play(list(segments), settings, answers or {})
    if split:
        octets = [bytes([octet]) for octet in b"".join(segments)]
        assert play(octets, settings, answers or {}) == whole
    return whole


#: The environment for programs that can't be measured: they lose their rights, or their imports are looked at.
UNMEASURED = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}


class RawClient:
    """A client that sends octets as they are and reads replies: for what no library would send."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.socket = socket.create_connection(address, timeout=10)
        self._file = self.socket.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()
        self.socket.close()

    def send(self, octets: bytes) -> None:
        """Send octets."""
        self.socket.sendall(octets)

    def read_reply(self) -> str:
        """Read one reply, the lines of which are parted by a line feed; "" at the end of the connection."""
        lines = []
        while line := self._file.readline():
            lines.append(line.decode("ascii").removesuffix("\r\n"))
            if line[3:4] != b"-":
                break
        return "\n".join(lines)

    def ask(self, command: str) -> str:
        """Send a command and read its reply."""
        self.send(command.encode() + b"\r\n")
        return self.read_reply()


def peak(run: Callable[[], object]) -> int:
    """Return how many octets are allocated at the peak of a run, beyond those before it."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        run()
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


def assert_linear(
    cost: Callable[[], int], larger_cost: Callable[[], int], *, times: int, least: int, most: int
) -> None:
    """Assert that the larger cost is less than so many times the other one, measured again in `least` to `most` rounds.

    The least cost so far is the one that the rest of a busy machine disturbed least: what backtracks stays far above
    the bound in every round.
    """
    small, large = cost(), larger_cost()
    for done in range(most):
        if done >= least and large < times * small:
            break
        small, large = min(small, cost()), min(large, larger_cost())
    assert large < times * small


def steps(run: Callable[[], object], call: Callable[[Callable[[], None]], None] = lambda call: call()) -> int:
    """Return how many lines of Python a run makes a thread go through: work that no busy machine disturbs.

    `call` calls something in that thread; without it this one is meant. Who measures coverage has to do without.
    """
    lines = 0
    before: Any = None

    def trace(_frame: FrameType, event: str, _argument: object) -> TraceFunction:
        nonlocal lines
        lines += event == "line"
        return trace

    def begin() -> None:
        nonlocal before
        before = sys.gettrace()
        sys.settrace(trace)

    call(begin)
    try:
        run()
    finally:
        call(lambda: sys.settrace(before))
    return lines


def traffic(run: Iterable[object]) -> int:
    """Return how many octets are allocated in a run, also those that are let go at once: the peaks of its parts."""
    total = 0
    tracemalloc.start()
    try:
        parts = iter(run)
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        for _ in parts:
            total += tracemalloc.get_traced_memory()[1] - before
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    return total


def assert_proportional(cost: Callable[[int], int], size: int, *, most: int = 12) -> None:
    """Assert that ten times the size costs less than `most` times as much; what is done once is done before."""
    cost(2)
    small, large = cost(size), cost(10 * size)
    assert 0 < large < most * small
