"""Faults: rules that say what to answer or to do instead of what a well-behaved server does, when and how often.

    server.on("RCPT", rcpttos="bob@example.org", times=2).defer("4.2.1 Mailbox busy")
    server.on("CONTENT").delay(0.2).store().disconnect()

A rule is a stage of the session, what must match, a window, and a script of actions that follow one another.
For each event the first rule applies that fits and is open.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self, TypeAlias

from . import actions
from .actions import Gate
from .criteria import Criteria

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterator, Mapping

    from .actions import Action
    from .dialogue import Dialogue
    from .message import Message

#: Has something called in the serving thread.
Call: TypeAlias = "Callable[[Callable[[], object]], None]"

#: The stage that stands for all.
ANY = "ANY"

#: What can be said of a session at any stage, and of a message only behind its content.
_CRITERIA = frozenset({"peer", "helo", "esmtp", "tls", "auth", "mailfrom", "rcpttos", "mail_options", "rcpt_options"})


@dataclass(eq=False)
class Window:
    """How often a rule applies to the events that match.

    `times` is how often at the most, `after` to how many that come first it does not, `every` that it does to
    each so-manieth only, `nth` to this one only (the first is 1). `probability` leaves it to chance, the same
    chances for the same `seed`.
    """

    times: int | None = None
    after: int = 0
    every: int = 1
    nth: int | None = None
    probability: float = 1.0
    seed: int | None = None
    #: How often the rule has applied.
    hits: int = field(init=False, default=0)
    _matches: int = field(init=False, default=0)
    _chances: random.Random = field(init=False)

    def __post_init__(self) -> None:
        """Check the values."""
        for name, least in (("times", 1), ("after", 0), ("every", 1), ("nth", 1)):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < least):
                msg = f"{name} is a number from {least} on, not {value!r}"
                raise ValueError(msg)
        if not 0 < self.probability <= 1:
            msg = f"probability is more than 0 and at most 1, not {self.probability!r}"
            raise ValueError(msg)
        if self.nth is not None:
            if (self.times, self.after, self.every) != (None, 0, 1):
                msg = "nth stands alone, without times, after and every"
                raise ValueError(msg)
            self.times, self.after = 1, self.nth - 1
        if self.seed is None:
            self.seed = random.randrange(2**32)  # noqa: S311 - chances, no secrets
        self._chances = random.Random(self.seed)  # noqa: S311

    def admits(self) -> bool:
        """Count one more event that matches; return whether the rule applies to it."""
        self._matches += 1
        counted = self._matches - self.after
        if counted <= 0 or counted % self.every or self.remaining == 0:
            return False
        if self.probability < 1 and self._chances.random() >= self.probability:
            return False
        self.hits += 1
        return True

    @property
    def remaining(self) -> int | None:
        """How often the rule applies yet; None: any number of times."""
        return None if self.times is None else self.times - self.hits

    def __str__(self) -> str:
        named = {"times": (self.times, None), "after": (self.after, 0), "every": (self.every, 1)}
        text = [f"{name}={value}" for name, (value, default) in named.items() if value != default]
        return ", ".join(
            [*text, *([f"probability={self.probability}, seed={self.seed}"] if self.probability < 1 else [])]
        )


@dataclass(eq=False)
class Rule:
    """What `server.on(stage, …)` returns: its methods say what happens, one after the other, and return it again.

    An answer is sent when the script has come to its end, by which time it may have waited; without one the
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
    #: What is done, step by step.
    script: tuple[Action, ...] = ()
    #: The dialogues in which the rule has applied.
    dialogues: list[Dialogue] = field(default_factory=list)
    _gate: Gate = field(default_factory=Gate)

    # What happens.

    def reply(self, code: int, text: str = "", *, raw: bool = False) -> Self:
        """Answer this, such as 550, "5.1.1 No such user".

        Raises ValueError for a code that contradicts SMTP at this stage, unless it is `raw`.
        """
        return self._then(actions.answer(self.stage, code, text, raw=raw))

    def reject(self, text: str = "") -> Self:
        """Refuse for good (5yz), with a text that may begin with an enhanced status code."""
        return self._then(actions.reject(self.stage, text))

    def defer(self, text: str = "") -> Self:
        """Refuse for now (4yz), with a text that may begin with an enhanced status code."""
        return self._then(actions.defer(self.stage, text))

    def accept(self) -> Self:
        """Accept, even if the server would refuse."""
        return self._then(actions.accept(self.stage))

    def discard(self) -> Self:
        """Accept a message, and don't record it."""
        return self._then(actions.discard(self.stage))

    def raw(self, octets: bytes) -> Self:
        """Send exactly these octets for an answer; the session goes on as their first three digits say."""
        return self._then(actions.raw(octets))

    def store(self) -> Self:
        """Record the message now, whatever is answered afterwards."""
        return self._then(actions.store(self.stage))

    def delay(self, seconds: float) -> Self:
        """Wait."""
        return self._then(actions.delay(seconds))

    def hang(self) -> Self:
        """Never answer: until the test ends, or the server stops."""
        return self._then(actions.hang)

    def hold(self) -> Self:
        """Wait until `release` is called; `reached.wait(timeout)` waits for a client to come here."""
        return self._then(self._gate.hold)

    def fragment(self, *sizes: int, pause: float = 0.001) -> Self:
        """Send the answer in pieces of these sizes in octets, the last of them for all that follow.

        `pause` are the seconds between two pieces.
        """
        return self._then(actions.fragment(sizes, pause))

    def throttle(self, octets_per_second: float) -> Self:
        """Send the answer octet by octet, so many a second."""
        return self._then(actions.throttle(octets_per_second))

    def disconnect(self) -> Self:
        """Close the connection, behind the answer if one was chosen."""
        return self._then(actions.disconnect)

    def reset(self) -> Self:
        """Reset the connection (RST), behind the answer if one was chosen."""
        return self._then(actions.reset)

    def _then(self, action: Action) -> Self:
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

    def __str__(self) -> str:
        match = [str(self.criteria)] if self.criteria else []
        match += [getattr(self.match, "__name__", repr(self.match))] if self.match else []
        window = [text] if (text := str(self.window)) else []
        return f"on({', '.join([repr(self.stage), *match, *window])})"

    # In the serving thread.

    def applies(self, stage: str, look: Callable[[], Message], octets: int | None) -> bool:
        """Whether the rule applies to an event of this stage; `look` returns what is known of the message so far.

        `octets` is how many octets of content are there while more are to come.
        """
        if self.stage not in {stage, ANY} or (octets is None) != (self.after_bytes is None):
            return False
        if self.after_bytes is not None and octets is not None and octets < self.after_bytes:
            return False
        if self.criteria and not self.criteria.match(look()):
            return False
        if self.match is not None and not self.match(look()):
            return False
        return self.window.admits()


_WINDOW = {"times", "after", "every", "nth", "probability", "seed"}


class Rules:
    """The rules of a server, in the order in which they were given."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._rules: tuple[Rule, ...] = ()
        #: Whether a rule interrupts content while it comes.
        self.interrupt_content = False

    def __iter__(self) -> Iterator[Rule]:
        """Iterate over the rules."""
        return iter(self._rules)

    def __len__(self) -> int:
        """Return how many rules there are."""
        return len(self._rules)

    def add(
        self, stage: str, match: Callable[[Message], object] | None, after_bytes: int | None, options: dict[str, Any]
    ) -> Rule:
        """Add a rule behind the others; see `RecordingServer.on`."""
        stage = _check_stage(stage)
        window = Window(**{name: options.pop(name) for name in _WINDOW & options.keys()})
        _check_criteria(stage, options)
        rule = Rule(stage, window, Criteria(options), match, after_bytes, self._call)
        self._rules = (*self._rules, rule)
        self.interrupt_content = any(rule.after_bytes is not None for rule in self._rules)
        return rule

    def find(self, stage: str, look: Callable[[], Message], octets: int | None = None) -> Rule | None:
        """Return the first rule that applies to an event of this stage."""
        return next((rule for rule in self._rules if rule.applies(stage, look, octets)), None)

    def clear(self) -> None:
        """Forget all rules."""
        self._rules = ()
        self.interrupt_content = False


def _check_stage(stage: object) -> str:
    if not isinstance(stage, str) or not re.fullmatch(r"[A-Za-z0-9_-]+", stage):
        msg = f"a stage is a verb such as 'RCPT', or 'CONNECT', 'CONTENT', 'TLS' or 'ANY', not {stage!r}"
        raise ValueError(msg)
    return stage.upper()


def _check_criteria(stage: str, criteria: Mapping[str, Any]) -> None:
    known = criteria.keys() if stage in {"CONTENT", "ANY"} else criteria.keys() & _CRITERIA
    if unknown := criteria.keys() - known:
        Criteria(criteria)  # raises for a misspelt one
        msg = f"{', '.join(sorted(unknown))}: not known before the content; match it at on('CONTENT', …)"
        raise ValueError(msg)
