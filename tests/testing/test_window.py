"""Window: to which of the events that match a rule applies."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_smtpd.testing.window import Window


def admitted(events: int, **values: Any) -> list[int]:
    """Return to which of so many events a rule applies, the first being 1."""
    window = Window(**values)
    return [event for event in range(1, events + 1) if window.admits()]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, [1, 2, 3, 4, 5, 6, 7]),
        ({"times": 2}, [1, 2]),
        ({"after": 5}, [6, 7]),
        ({"after": 1, "times": 3}, [2, 3, 4]),
        ({"every": 3}, [3, 6]),
        ({"every": 2, "after": 1, "times": 2}, [3, 5]),
        ({"nth": 1}, [1]),
        ({"nth": 4}, [4]),
        ({"nth": 8}, []),
    ],
)
def test_a_window_admits_these_of_seven(values: dict[str, Any], expected: list[int]) -> None:
    """`times` limits, `after` skips the first ones, `every` takes each so-manieth, `nth` this one only."""
    assert admitted(7, **values) == expected


def test_chances_are_the_same_for_the_same_seed() -> None:
    """With `probability` some events are admitted, for the same seed always the same ones."""
    chosen = admitted(1000, probability=0.25, seed=7)
    assert chosen == admitted(1000, probability=0.25, seed=7)
    assert chosen != admitted(1000, probability=0.25, seed=8)
    assert 150 < len(chosen) < 350


def test_a_window_without_a_seed_tells_the_one_it_has_chosen() -> None:
    """The seed that was not given stands in the text, and leads to the same chances."""
    window = Window(probability=0.5)
    chosen = [event for event in range(1, 101) if window.admits()]
    assert str(window) == f"probability=0.5, seed={window.seed}"
    assert admitted(100, probability=0.5, seed=window.seed) == chosen


def test_what_remains_goes_down_with_each_hit() -> None:
    """`hits` counts up, `remaining` down; without `times` nothing limits what remains."""
    window = Window(times=2, after=1)
    told = [(window.admits(), window.hits, window.remaining) for _ in range(4)]
    assert told == [(False, 0, 2), (True, 1, 1), (True, 2, 0), (False, 2, 0)]
    assert Window().remaining is None


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({}, ""),
        ({"times": 2, "after": 1, "every": 3}, "times=2, after=1, every=3"),
        ({"nth": 2}, "nth=2"),
        ({"probability": 0.5, "seed": 3}, "probability=0.5, seed=3"),
    ],
)
def test_a_window_reads_as_it_was_given(values: dict[str, Any], text: str) -> None:
    """Its text has the values that are not the defaults."""
    assert str(Window(**values)) == text


@pytest.mark.parametrize(
    ("values", "error"),
    [
        ({"times": 0}, "times is a whole number from 1 on, not 0"),
        ({"times": True}, "times is a whole number from 1 on, not True"),
        ({"times": "2"}, "times is a whole number from 1 on, not '2'"),
        ({"after": -1}, "after is a whole number from 0 on, not -1"),
        ({"after": None}, "after is a whole number from 0 on, not None"),
        ({"every": 0}, "every is a whole number from 1 on, not 0"),
        ({"nth": 0}, "nth is a whole number from 1 on, not 0"),
        ({"nth": 2, "times": 2}, "nth stands alone"),
        ({"nth": 2, "every": 2}, "nth stands alone"),
        ({"probability": 0}, "probability is a number above 0, and at most 1, not 0"),
        ({"probability": 1.5}, "probability is a number above 0, and at most 1, not 1.5"),
        ({"probability": "often"}, "probability is a number above 0, and at most 1, not 'often'"),
        ({"probability": float("nan")}, "probability is a number above 0, and at most 1, not nan"),
        ({"probability": 0.5, "seed": -1}, "seed is a whole number from 0 on, not -1"),
        ({"seed": 5}, "seed is for a probability below 1"),
    ],
)
def test_values_that_make_no_sense_are_refused(values: dict[str, Any], error: str) -> None:
    """The error names the argument and says what it takes."""
    with pytest.raises(ValueError, match=error):
        Window(**values)
