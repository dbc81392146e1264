"""Window: to which of the events that match a rule applies."""

from __future__ import annotations

import random
from dataclasses import dataclass, field


@dataclass(eq=False)
class Window:
    """How often a rule applies to the events that match.

    `times` is how often at the most, `after` to how many that come first it does not, `every` that it does to
    each so-manieth only, `nth` to this one only (the first is 1). `probability` leaves it to chance, the same
    chances for the same `seed`. Raises ValueError for values that make no sense.
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
        for name, least in (("times", 1), ("after", 0), ("every", 1), ("nth", 1), ("seed", 0)):
            value = getattr(self, name)
            if not (value is None and name in {"times", "nth", "seed"}):
                check_count(name, value, least)
        self._check_probability()
        if self.nth is not None:
            if (self.times, self.after, self.every) != (None, 0, 1):
                msg = "nth stands alone, without times, after and every"
                raise ValueError(msg)
            self.times, self.after = 1, self.nth - 1
        if self.seed is None:
            self.seed = random.randrange(2**32)  # noqa: S311 - chances, no secrets
        self._chances = random.Random(self.seed)  # noqa: S311 - as above

    def _check_probability(self) -> None:
        chance = self.probability
        if isinstance(chance, bool) or not isinstance(chance, (int, float)) or not 0 < chance <= 1:
            msg = f"probability is a number above 0, and at most 1, not {chance!r}"
            raise ValueError(msg)
        if self.seed is not None and chance == 1:
            msg = "seed is for a probability below 1: without one nothing is left to chance"
            raise ValueError(msg)

    def admits(self, *, taken: bool = False) -> bool:
        """Count one more event that matches; return whether the rule applies to it.

        Not where another rule does already, but it counts all the same: the second event is the second one for
        all rules.
        """
        self._matches += 1
        counted = self._matches - self.after
        if taken or counted <= 0 or counted % self.every or self.remaining == 0:
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
        values: dict[str, float | None]
        values = {"nth": self.nth} if self.nth else {"times": self.times, "after": self.after, "every": self.every}
        values |= {"probability": self.probability, "seed": self.seed} if self.probability < 1 else {}
        defaults = {"times": None, "after": 0, "every": 1}
        return ", ".join(f"{name}={value}" for name, value in values.items() if value != defaults.get(name, ""))


def check_count(name: str, value: object, least: int) -> None:
    """Raise ValueError for what is no whole number, or one that is too small."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        msg = f"{name} is a whole number from {least} on, not {value!r}"
        raise ValueError(msg)
