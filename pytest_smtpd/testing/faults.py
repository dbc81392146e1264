"""Faults: rules that say what to answer or to do instead of what a well-behaved server does, when and how often.

    server.on("RCPT", rcpttos="bob@example.org", times=2).defer("4.2.1 Mailbox busy")
    server.on("CONTENT").delay(0.2).store().disconnect()

A rule is a stage of the session, what must match, a window, and a script of actions that follow one another.
For each event the first rule applies that fits and is open.
"""

from __future__ import annotations

import difflib
import re
import sys
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeAlias

from . import actions
from .actions import Gate
from .criteria import Criteria
from .dialogue import MAX_DIALOGUES, Dialogue
from .window import Window, check_count

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Mapping

    from .actions import Action
    from .message import Message

#: Has something called in the serving thread.
Call: TypeAlias = "Callable[[Callable[[], object]], None]"

#: The stage that stands for all.
ANY = "ANY"

#: What is said in sessions, by stage: whoever writes what is nearly one of these means it.
_STAGES = (
    *("CONNECT", "CONTENT", "TLS", ANY, "EHLO", "HELO", "LHLO", "MAIL", "RCPT", "DATA", "BDAT", "RSET", "NOOP"),
    *("QUIT", "VRFY", "EXPN", "HELP", "STARTTLS", "AUTH", "ETRN", "ATRN", "TURN", "SEND", "SOML", "SAML", "BURL"),
)

_PACKAGE = str(Path(__file__).parents[1])

#: What can be known of a message before its content has come, and what of that at single stages.
_BEFORE_CONTENT = frozenset(
    {"peer", "helo", "esmtp", "tls", "auth", "mailfrom", "rcpttos", "mail_options", "rcpt_options"}
)
_KNOWN = {
    "CONNECT": frozenset({"peer", "tls"}),
    "MAIL": _BEFORE_CONTENT - {"rcpttos", "rcpt_options"},
}


@dataclass(eq=False, repr=False)
class Rule:
    """What `server.on(stage, …)` returns: its methods say what happens, one after the other, and return it again.

    It applies from its first action on. An answer is sent when the script has come to its end, by which time it
    may have waited; without one the
    usual answer is sent. `reply`, `reject`, `defer`, `accept`, `discard` and `raw` choose it, `store` records
    the message whatever is answered, `delay`, `hold` and `hang` wait, `fragment` and `throttle` send it in
    pieces, `disconnect` and `reset` end the connection, behind the answer if one was chosen.
    """

    stage: str
    window: Window
    #: Which messages, as far as they are known, it applies to.
    criteria: Criteria
    match: Callable[[Message], object] | None
    #: How many octets of the content have to come; None: all of it.
    after_bytes: int | None
    _call: Call
    #: Where it was given: "file:line".
    where: str = ""
    #: What is done, step by step.
    script: tuple[Action, ...] = ()
    _said: str = ""
    _dialogues: deque[Dialogue] = field(default_factory=lambda: deque(maxlen=MAX_DIALOGUES))
    _gate: Gate = field(default_factory=Gate)

    # What happens.

    def reply(self, code: int, text: str = "", *, raw: bool = False) -> Self:
        """Answer this, such as 550, "5.1.1 No such user".

        Raises ValueError for a code that contradicts SMTP at this stage, unless it is `raw`.
        """
        __tracebackhide__ = True
        action = actions.answer(self.stage, code, text, raw=raw)
        return self._then(action, "reply", code, *([text] if text else []))

    def reject(self, text: str = "") -> Self:
        """Refuse for good (5yz), with a text that may begin with an enhanced status code."""
        __tracebackhide__ = True
        return self._then(actions.reject(self.stage, text), "reject", *([text] if text else []))

    def defer(self, text: str = "") -> Self:
        """Refuse for now (4yz), with a text that may begin with an enhanced status code."""
        __tracebackhide__ = True
        return self._then(actions.defer(self.stage, text), "defer", *([text] if text else []))

    def accept(self) -> Self:
        """Accept, even if the server would refuse."""
        return self._then(actions.accept, "accept")

    def discard(self) -> Self:
        """Accept a message, and don't record it."""
        self._only_for_messages("discard")
        return self._then(actions.discard, "discard")

    def raw(self, octets: bytes) -> Self:
        """Send exactly these octets for an answer; the session goes on as their first three digits say."""
        return self._then(actions.raw(octets), "raw", octets)

    def store(self) -> Self:
        """Record the message now, whatever is answered afterwards."""
        self._only_for_messages("store")
        return self._then(actions.store, "store")

    def delay(self, seconds: float) -> Self:
        """Wait so many seconds."""
        return self._then(actions.delay(seconds), "delay", seconds)

    def hang(self) -> Self:
        """Never answer: until the test ends, or the server stops."""
        return self._then(actions.hang, "hang")

    def hold(self) -> Self:
        """Wait until `release` is called; `reached.wait(timeout)` waits for a client to come here."""
        return self._then(self._gate.hold, "hold")

    def fragment(self, *sizes: int, pause: float = 0.001) -> Self:
        """Send the answer in pieces of these sizes in octets, the last of them for all that follow.

        `pause` are the seconds between two pieces.
        """
        return self._then(actions.fragment(sizes, pause), "fragment", *sizes)

    def throttle(self, octets_per_second: float) -> Self:
        """Send the answer octet by octet, so many a second."""
        return self._then(actions.throttle(octets_per_second), "throttle", octets_per_second)

    def disconnect(self) -> Self:
        """Close the connection, behind the answer if one was chosen."""
        return self._then(actions.disconnect, "disconnect")

    def reset(self) -> Self:
        """Reset the connection (RST), behind the answer if one was chosen."""
        return self._then(actions.reset, "reset")

    def _only_for_messages(self, action: str) -> None:
        if self.stage != "CONTENT" or self.after_bytes is not None:
            msg = f"{action}() is for a message that is there: on('CONTENT').{action}(), not {self}.{action}()"
            raise ValueError(msg)

    def _then(self, action: Action, name: str, *arguments: object) -> Self:
        self._said += f".{name}({', '.join(map(repr, arguments))})"
        self.script = (*self.script, action)
        return self

    # How it went.

    @property
    def hits(self) -> int:
        """How often the rule has applied."""
        return self.window.hits

    @property
    def remaining(self) -> int | None:
        """How often it applies yet; None: any number of times."""
        return self.window.remaining

    @property
    def reached(self) -> threading.Event:
        """Set when a client has come to a `hold`."""
        return self._gate.reached

    def release(self) -> None:
        """Let all go on who have come to a `hold`, and those who come from now on."""
        self._call(self._gate.open)

    @property
    def dialogues(self) -> list[Dialogue]:
        """The dialogues in which it has applied, the last 1000."""
        return list(self._dialogues)

    @property
    def is_unused(self) -> bool:
        """Whether it has never applied, though that was not left to chance."""
        return not self.hits and self.window.probability == 1

    @property
    def summary(self) -> str:
        """How often it has applied, and where it was given."""
        number = f"{self.hits} time{'' if self.hits == 1 else 's'}" if self.script else "it has no action"
        return f"{self}: {number} ({self.where})"

    def __str__(self) -> str:
        match = [getattr(self.match, "__name__", repr(self.match))] if self.match else []
        match += [f"after_bytes={self.after_bytes}"] if self.after_bytes else []
        match += [text for text in (str(self.criteria), str(self.window)) if text]
        return f"on({', '.join([repr(self.stage), *match])}){self._said}"

    def __repr__(self) -> str:
        return f"<Rule {self}>"

    # In the serving thread.

    def matches(self, stage: str, look: Callable[[], Message], mark: int | None) -> bool:
        """Whether the rule is for an event of this stage; `look` returns what is known of the message so far.

        `mark` is how many octets of content have come, where more are to come.
        """
        if self.stage not in {stage, ANY} or self.after_bytes != mark or not self.script:
            return False
        if self.criteria and not self.criteria.match(look()):
            return False
        return self.match is None or bool(self.match(look()))

    def note(self, dialogue: Dialogue) -> None:
        """Remember a dialogue in which it applies."""
        if not self._dialogues or self._dialogues[-1] is not dialogue:
            self._dialogues.append(dialogue)


#: What `on` takes for the window.
_WINDOW = {"times", "after", "every", "nth", "probability", "seed"}


def make_rule(stage: object, match: Any, after_bytes: int | None, options: dict[str, Any], call: Call) -> Rule:
    """Return the rule that `RecordingServer.on` is to add; raises ValueError and TypeError as that does."""
    __tracebackhide__ = True
    stage = _check_stage(stage)
    if after_bytes is not None:
        _check_after_bytes(stage, after_bytes)
    if match is not None and not callable(match):
        msg = f"match is a function that is asked with a message, not {match!r}; criteria go by name"
        raise TypeError(msg)
    window = Window(**{name: options.pop(name) for name in _WINDOW & options.keys()})
    criteria = _read_criteria(stage, options)
    return Rule(stage, window, criteria, match, after_bytes, call, _find_caller())


def _check_stage(stage: object) -> str:
    __tracebackhide__ = True
    if not isinstance(stage, str) or not re.fullmatch(r"[A-Za-z0-9_-]+", stage):
        msg = f"a stage is a verb such as 'RCPT', or 'CONNECT', 'CONTENT', 'TLS' or 'ANY', not {stage!r}"
        raise ValueError(msg)
    stage = stage.upper()
    # Verbs that begin with X are anybody's (RFC 5321 4.1.5).
    close = [] if stage in _STAGES or stage[0] == "X" else difflib.get_close_matches(stage, _STAGES, 1, 0.75)
    if close:
        msg = f"there is no stage {stage!r}: did you mean {close[0]!r}?"
        raise ValueError(msg)
    return stage


def _check_after_bytes(stage: str, after_bytes: object) -> None:
    __tracebackhide__ = True
    check_count("after_bytes", after_bytes, 1)
    if stage != "CONTENT":
        msg = f"after_bytes counts octets of content: on('CONTENT', after_bytes={after_bytes}), not on({stage!r}, …)"
        raise ValueError(msg)


def _read_criteria(stage: str, criteria: Mapping[str, Any]) -> Criteria:
    __tracebackhide__ = True
    try:
        read = Criteria(criteria)
    except TypeError:
        for name in criteria:
            if close := difflib.get_close_matches(name, {*_WINDOW, "after_bytes"}, 1, 0.75):
                msg = f"on() takes no {name}: did you mean {close[0]}?"
                raise TypeError(msg) from None
        raise
    known = criteria.keys() if stage in {"CONTENT", ANY} else _KNOWN.get(stage, _BEFORE_CONTENT)
    if unknown := criteria.keys() - known:
        later = "RCPT" if unknown <= _BEFORE_CONTENT else "CONTENT"
        msg = f"{', '.join(sorted(unknown))}: not known at {stage}; match it at on({later!r}, …)"
        raise ValueError(msg)
    return read


def _find_caller() -> str:
    """Return where the code is that has called this package."""
    frame = sys._getframe()  # noqa: SLF001 - inspect.stack() reads source files, slowly
    while frame.f_back and frame.f_code.co_filename.startswith(_PACKAGE):
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"
