"""Outbox: the received messages as a sequence to look into, from any thread."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from pytest_smtpd import Message, Messages, Outbox


def make_message(subject: str, rcptto: str = "bob@example.org") -> Message:
    """Return a message with this subject."""
    data = f"Subject: {subject}\r\n\r\n".encode()
    return Message(peer=("127.0.0.1", 40000), mailfrom="ada@example.org", rcpttos=[rcptto], data=data)


def make_outbox(*subjects: str) -> Outbox:
    """Return an outbox that has received messages with these subjects."""
    outbox = Outbox()
    for subject in subjects:
        outbox.add(make_message(subject), outbox.generation)
    return outbox


def subjects(messages: Sequence[Message]) -> list[str]:
    """Return the subjects of messages."""
    return [message.subject for message in messages]


@pytest.fixture
def _frequent_switches() -> Iterator[None]:
    """Let threads run in turns as short as possible."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


# A sequence.


def test_an_outbox_is_a_sequence() -> None:
    """An outbox is counted, indexed, sliced, searched and reversed as any sequence."""
    outbox = make_outbox("one", "two", "three")
    assert isinstance(outbox, Sequence)
    assert len(outbox) == 3
    assert (outbox[0].subject, outbox[-1].subject) == ("one", "three")
    assert subjects(outbox[1:]) == ["two", "three"]
    assert subjects(list(reversed(outbox))) == ["three", "two", "one"]
    assert make_message("two") in outbox
    assert outbox.index(make_message("two")) == 1
    assert outbox.count(make_message("four")) == 0


def test_an_empty_outbox_is_false() -> None:
    """`assert not server.messages` says that nothing came."""
    assert not make_outbox()
    assert make_outbox("one")
    with pytest.raises(IndexError):
        make_outbox()[0]


def test_messages_equal_any_sequence_of_equal_messages() -> None:
    """An outbox equals a list, a tuple or another outbox with the same messages in the same order."""
    outbox = make_outbox("one", "two")
    one, two = outbox
    assert outbox == [one, two] == outbox
    assert outbox == (one, two)
    assert outbox == make_outbox("one", "two")
    assert outbox != [two, one]
    assert outbox != {one.subject, two.subject}
    assert make_outbox() == []


def test_messages_print_as_their_number() -> None:
    """An outbox and a choice of it print as what they are and how many messages they have."""
    outbox = make_outbox("one", "two")
    assert repr(outbox) == "<Outbox: 2 messages>"
    assert repr(outbox.where(subject="one")) == "<Messages: 1 messages>"


def test_an_outbox_has_no_hash() -> None:
    """What changes can be no key."""
    with pytest.raises(TypeError, match="unhashable"):
        hash(make_outbox())


# Choosing.


def test_where_chooses_in_order() -> None:
    """`where` returns the messages that meet the criteria, in order, as `Messages`."""
    chosen = make_outbox("one", "two", "one more").where(subject=lambda subject: "one" in subject)
    assert isinstance(chosen, Messages)
    assert subjects(chosen) == ["one", "one more"]


def test_where_can_be_chained() -> None:
    """Choosing among chosen messages works as choosing by both criteria."""
    outbox = make_outbox("one", "two", "two")
    outbox.add(make_message("two", "eve@example.org"), outbox.generation)
    assert outbox.where(subject="two").where(rcpttos="eve@example.org").one().rcpttos == ["eve@example.org"]


def test_where_does_not_change_later() -> None:
    """What was chosen stays as it was when more messages come, or all go."""
    outbox = make_outbox("one")
    everything = outbox.where()
    outbox.add(make_message("two"), outbox.generation)
    assert subjects(everything) == ["one"]
    outbox.clear()
    assert subjects(everything) == ["one"]


def test_where_refuses_unknown_criteria() -> None:
    """A misspelt criterion raises TypeError even if there is no message to look at."""
    with pytest.raises(TypeError, match=r"subjekt is no criterion for messages: did you mean subject\?"):
        make_outbox().where(subjekt="x")


def test_one_first_and_last() -> None:
    """`one` returns the only message, `first` and `last` the ends of the sequence."""
    outbox = make_outbox("one", "two", "three")
    assert outbox.where(subject="two").one().subject == "two"
    assert outbox.first().subject == "one"
    assert outbox.last().subject == "three"


@pytest.mark.parametrize(
    ("pick", "lines"),
    [
        pytest.param(
            lambda outbox: outbox.where(subject="none").one(),
            [
                "expected exactly one message with subject='none', found none",
                "Messages received: 2",
                "  [0] from <ada@example.org> to <bob@example.org>: 'one'",
                "        subject: expected 'none', got 'one'",
                "  [1] from <ada@example.org> to <bob@example.org>: 'two'",
                "        subject: expected 'none', got 'two'",
            ],
            id="one of none",
        ),
        pytest.param(
            lambda outbox: outbox.one(),
            [
                "expected exactly one message, found 2",
                "Messages received: 2",
                "  [0] from <ada@example.org> to <bob@example.org>: 'one'",
                "  [1] from <ada@example.org> to <bob@example.org>: 'two'",
            ],
            id="one of two",
        ),
        pytest.param(
            lambda outbox: outbox.where(mailfrom="eve@example.org", subject="two").first(),
            [
                "expected a message with mailfrom='eve@example.org', subject='two', found none",
                "Messages received: 2",
                "  [0] from <ada@example.org> to <bob@example.org>: 'one'",
                "        mailfrom: expected 'eve@example.org', got 'ada@example.org'",
                "        subject: expected 'two', got 'one'",
                "  [1] from <ada@example.org> to <bob@example.org>: 'two'",
                "        mailfrom: expected 'eve@example.org', got 'ada@example.org'",
            ],
            id="first of none",
        ),
        pytest.param(
            lambda _: Outbox().where(subject="one").last(),
            ["expected a message with subject='one', found none", "The server has received no message."],
            id="last of nothing received",
        ),
        pytest.param(
            lambda _: Outbox().one(),
            ["expected exactly one message, found none", "The server has received no message."],
            id="one of nothing received",
        ),
    ],
)
def test_failures_tell_what_was_received(pick: Callable[[Outbox], Message], lines: list[str]) -> None:
    """A failure says what was expected, how many were found, what was received and what differs."""
    with pytest.raises(AssertionError) as caught:
        pick(make_outbox("one", "two"))
    assert str(caught.value).splitlines() == lines


def test_failures_explain_the_three_nearest_messages() -> None:
    """Of many messages, all are listed and only the three with the fewest differences are explained."""
    outbox = make_outbox("far", "far", "far", "far")
    for subject in ("near", "near", "near"):
        outbox.add(make_message(subject, "eve@example.org"), outbox.generation)
    with pytest.raises(AssertionError) as caught:
        outbox.where(subject="here", rcpttos="eve@example.org").one()
    lines = str(caught.value).splitlines()
    assert [line[2:5] for line in lines if line.startswith("  [")] == [f"[{index}]" for index in range(7)]
    assert [line.strip() for line in lines if line.startswith("   ")] == ["subject: expected 'here', got 'near'"] * 3


def test_failures_list_twenty_messages() -> None:
    """Of very many messages, twenty are listed and the rest is counted."""
    with pytest.raises(AssertionError) as caught:
        make_outbox(*(f"number {number}" for number in range(23))).one()
    lines = str(caught.value).splitlines()
    assert lines[:2] == ["expected exactly one message, found 23", "Messages received: 23"]
    assert lines[-2:] == ["  [19] from <ada@example.org> to <bob@example.org>: 'number 19'", "  … and 3 more"]


# Generations.


def test_clear_forgets_all() -> None:
    """A cleared outbox is empty, and begins a generation, of the owner that is named."""
    outbox = make_outbox("one")
    before = outbox.generation
    outbox.clear("test_mail.py::test_two")
    assert outbox == []
    assert outbox.generation is not before
    assert (before.owner, outbox.generation.owner) == ("", "test_mail.py::test_two")


def test_messages_of_an_earlier_generation_are_not_added() -> None:
    """A message whose transaction began before the outbox was cleared never shows up."""
    outbox = make_outbox()
    generation = outbox.generation
    outbox.clear()
    outbox.add(make_message("late"), generation)
    outbox.add(make_message("new"), outbox.generation)
    assert subjects(outbox) == ["new"]


# Threads.


@pytest.mark.usefixtures("_frequent_switches")
def test_threads_lose_no_message() -> None:
    """Messages that several threads add while others look are all there, each thread's in order."""
    outbox = Outbox()
    messages = [[make_message(f"{thread} {number}") for number in range(200)] for thread in range(4)]

    def look() -> None:
        seen: list[Message] = []
        while len(seen) < 800:
            now = list(outbox)
            assert now[: len(seen)] == seen
            seen = now

    def add(own: list[Message]) -> None:
        for message in own:
            outbox.add(message, outbox.generation)

    with ThreadPoolExecutor(6) as pool:
        looking = [pool.submit(look) for _ in range(2)]
        list(pool.map(add, messages))
        for future in looking:
            future.result()
    assert len(outbox) == 800
    for thread, own in enumerate(messages):
        assert list(outbox.where(subject=lambda subject, mark=f"{thread} ": subject.startswith(mark))) == own


@pytest.mark.parametrize(
    "pick",
    [Outbox.one, Outbox.first, Outbox.last, lambda outbox: outbox.where().one()],
    ids=["one", "first", "last", "where"],
)
@pytest.mark.usefixtures("_frequent_switches")
def test_looking_while_another_thread_clears(pick: Callable[[Outbox], Message]) -> None:
    """Whoever looks while another thread clears sees a message or gets the AssertionError, and nothing else."""
    outbox = Outbox()
    message = make_message("one")

    def change() -> None:
        for _ in range(2000):
            outbox.add(message, outbox.generation)
            outbox.clear()

    found = set()
    with ThreadPoolExecutor(1) as pool:
        changing = pool.submit(change)
        while not changing.done():
            try:
                found.add(pick(outbox).subject)
            except AssertionError as error:
                found.add(str(error).partition("\n")[0].partition(",")[0])
        changing.result()
    assert found <= {"one", "expected exactly one message", "expected a message"}


def test_a_chain_of_where_explains_itself() -> None:
    """A failure behind several `where` names all their criteria, and the messages that were received."""
    with pytest.raises(AssertionError) as failure:
        make_outbox("Welcome").where(subject="Goodbye").where(mailfrom="eve@example.org").one()
    text = str(failure.value)
    assert text.startswith(
        "expected exactly one message with subject='Goodbye', mailfrom='eve@example.org', found none"
    )
    assert "Messages received: 1" in text
