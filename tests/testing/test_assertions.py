"""Assertions: waiting for messages and for silence, in threads and in tasks; what comes inside a block."""

from __future__ import annotations

import asyncio
import math
import smtplib
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
import pytest
from support import RawClient

from pytest_smtpd import Message, RecordingServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: Seconds until a test that fails gives up; no other one waits for so long.
LONG = 10.0


@pytest.fixture
def server() -> Iterator[RecordingServer]:
    """Return a running server."""
    with RecordingServer(wait_timeout=LONG) as server:
        yield server


def send(server: RecordingServer, *subjects: str) -> None:
    """Send messages as an application does."""
    with smtplib.SMTP(*server.address) as client:
        for subject in subjects:
            client.sendmail("ada@example.org", "bob@example.org", f"Subject: {subject}\r\n\r\nHi\r\n")


def subjects(messages: list[Message]) -> list[str]:
    """Return the subjects of messages."""
    return [message.subject for message in messages]


@pytest.fixture
def waiting(server: RecordingServer, monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Return what is set as soon as somebody watches the server's messages, before looking at them."""
    begun = threading.Event()
    watched = server.messages.watched

    def watch(watcher: Callable[[], object]) -> Any:
        begun.set()
        return watched(watcher)

    monkeypatch.setattr(server.messages, "watched", watch)
    return begun


WAITS: dict[str, Callable[[RecordingServer], Any]] = {
    "wait_for": lambda server: server.wait_for(subject="Now"),
    "assert_received": lambda server: [server.assert_received(timeout=LONG, subject="Now")],
    "assert_received, count": lambda server: server.assert_received(1, timeout=LONG, subject="Now"),
}


@pytest.mark.parametrize("wait", WAITS.values(), ids=WAITS)
def test_who_waits_gets_what_comes(
    server: RecordingServer, waiting: threading.Event, wait: Callable[[RecordingServer], list[Message]]
) -> None:
    """A wait that has begun ends with the message that comes then, and other messages don't end it."""
    with ThreadPoolExecutor(1) as pool:
        result = pool.submit(wait, server)
        assert waiting.wait(LONG)
        send(server, "Not yet", "Now")
        assert subjects(result.result(LONG)) == ["Now"]


def test_wait_for_returns_the_first_ones(server: RecordingServer) -> None:
    """`wait_for(count=n)` returns the first n messages that match, however many there are."""
    send(server, "one", "two", "three", "four")
    assert subjects(server.wait_for(2)) == ["one", "two"]
    assert subjects(server.wait_for(count=2, subject=lambda subject: "o" in subject)) == ["one", "two"]
    assert server.wait_for(0, subject="five") == []


def test_a_wait_in_vain_says_so(server: RecordingServer) -> None:
    """A time-out raises what a failed assertion raises, and says for how long was waited."""
    send(server, "Hello")
    for wait in (server.wait_for, server.assert_received):
        with pytest.raises(AssertionError) as caught:
            wait(2, timeout=0.01, subject="Bye")
        assert str(caught.value).splitlines()[:4] == [
            "expected 2 messages with subject='Bye', found none within 0.01 s",
            "Messages received: 1",
            "  [0] from <ada@example.org> to <bob@example.org>: 'Hello'",
            "        subject: expected 'Bye', got 'Hello'",
        ]


def test_without_time_there_is_no_waiting(server: RecordingServer) -> None:
    """With `timeout=0` what is there counts, and a failure mentions no time."""
    with pytest.raises(AssertionError, match=r"^expected 1 message, found none\n"):
        server.wait_for(timeout=0)
    send(server, "Hello")
    assert len(server.wait_for(timeout=0)) == 1


def test_the_default_is_an_option() -> None:
    """Where no `timeout` is given, the option `wait_timeout` tells for how long is waited."""
    with RecordingServer(wait_timeout=0.01) as server:
        with pytest.raises(AssertionError, match=r"found none within 0\.01 s"):
            server.wait_for()
        with RawClient(server.address), pytest.raises(AssertionError, match=r"connected within 0\.01 s"):
            server.wait_until_idle()
        with server.options(wait_timeout=0), pytest.raises(AssertionError, match="found none\n"):
            server.wait_for()


def test_more_than_expected_is_a_failure_too(server: RecordingServer) -> None:
    """`assert_received` with a timeout fails when there are too many, and does not say that it has waited."""
    send(server, "one", "two")
    with pytest.raises(AssertionError, match=r"^expected exactly one message, found 2\n"):
        server.assert_received(timeout=LONG)


def test_what_must_not_come_fails_as_soon_as_it_comes(server: RecordingServer, waiting: threading.Event) -> None:
    """`within=` has negative assertions wait for what must not come: all the time, or until it comes."""
    server.assert_not_received(within=0.01)
    server.assert_nothing_received(within=0.01)
    waiting.clear()
    with ThreadPoolExecutor(1) as pool:
        result = pool.submit(server.assert_nothing_received, within=LONG)
        assert waiting.wait(LONG)
        send(server, "Oops")
        with pytest.raises(AssertionError, match=r"^expected no message, found 1\n"):
            result.result(LONG)


def test_clearing_begins_anew(server: RecordingServer, waiting: threading.Event) -> None:
    """Messages that were there before `clear` do not count for who waits meanwhile."""
    send(server, "one", "two")
    with ThreadPoolExecutor(1) as pool:
        result = pool.submit(server.wait_for, 3)
        assert waiting.wait(LONG)
        server.clear()
        send(server, "three", "four", "five")
        assert subjects(result.result(LONG)) == ["three", "four", "five"]


def test_nobody_misses_a_message(server: RecordingServer) -> None:
    """Many threads that wait for many messages all get theirs, however threads take turns."""
    names = [f"message {number}" for number in range(60)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(12) as pool, ThreadPoolExecutor(3) as senders:
            results = [pool.submit(server.wait_for, subject=name) for name in names]
            sending = [senders.submit(send, server, *names[start::3]) for start in range(3)]
            assert [subjects(result.result(LONG)) for result in results] == [[name] for name in names]
            assert [done.result(LONG) for done in sending] == [None] * 3
    finally:
        sys.setswitchinterval(interval)


def test_each_message_is_looked_at_once() -> None:
    """Whoever waits for the last of many messages has each of them matched once."""
    server = RecordingServer()
    asked: list[str] = []

    def is_last(helo: str) -> bool:
        asked.append(helo)
        return helo == "9999"

    def receive() -> None:
        for number in range(10_000):
            message = Message(
                peer=("127.0.0.1", 1), mailfrom="", rcpttos=["bob@example.org"], data=b"", helo=str(number)
            )
            server.messages.add(message, server.messages.generation)

    with ThreadPoolExecutor(1) as pool:
        result = pool.submit(server.wait_for, timeout=LONG, helo=is_last)
        receive()
        assert [message.helo for message in result.result(LONG)] == ["9999"]
    assert asked == [str(number) for number in range(10_000)]
    server.stop()


# The end of the server.


def test_a_wait_ends_with_the_server(server: RecordingServer, waiting: threading.Event) -> None:
    """When the server is stopped nothing can come: who waits is told at once, and who begins to wait then, too."""
    with ThreadPoolExecutor(1) as pool:
        result = pool.submit(server.wait_for)
        assert waiting.wait(LONG)
        server.stop()
        with pytest.raises(AssertionError, match="found none; nothing can come any more, the server is stopped\n"):
            result.result(LONG)
    with pytest.raises(AssertionError, match="the server is stopped\n"):
        server.assert_received(timeout=LONG)
    server.assert_nothing_received(within=LONG)
    server.wait_until_idle()


def test_a_server_that_is_started_again_can_be_waited_for(server: RecordingServer) -> None:
    """After a restart, waiting works as before, and what came before counts."""
    send(server, "one")
    server.stop()
    server.start()
    send(server, "two")
    assert subjects(server.wait_for(2)) == ["one", "two"]


def test_a_server_that_was_not_started_is_waited_for() -> None:
    """A server that listens may be served any time; if nobody does, the failure says that it is not running."""
    server = RecordingServer(wait_timeout=0.01)
    with pytest.raises(AssertionError) as caught:
        server.wait_for()
    assert str(caught.value).splitlines() == [
        "expected 1 message, found none within 0.01 s",
        "The server has received no message.",
        f"No client has connected to {server.url}. The server is not running.",
    ]
    server.stop()
    with pytest.raises(AssertionError, match="the server is stopped\n"):
        server.wait_for()


# Mistakes.


#: What is said of a name that is none.
MEANT = "is no criterion for messages: did you mean"


@pytest.mark.parametrize(
    ("wait", "error", "text"),
    [
        (lambda server: server.wait_for("Hi"), TypeError, "count is a number of messages, not 'Hi'; criteria go by"),
        (
            lambda server: server.wait_for(count=True),
            TypeError,
            "count is a number of messages, not True; criteria go by",
        ),
        (lambda server: server.wait_for(1.0), TypeError, "count is a number of messages, not 1.0; criteria go by"),
        (lambda server: server.wait_for(-1), ValueError, "count is 0 or more, not -1"),
        (lambda server: server.assert_received(-1), ValueError, "count is 0 or more, not -1"),
        (lambda server: server.wait_for(1, "5"), TypeError, "timeout is a number of seconds, not '5'; criteria go by"),
        (lambda server: server.wait_for(timeout=True), TypeError, "timeout is a number of seconds, not True"),
        (lambda server: server.wait_for(timeout=-1), ValueError, "timeout is 0 seconds or more, not -1"),
        (lambda server: server.wait_for(timeout=math.nan), ValueError, "timeout is 0 seconds or more, not nan"),
        (lambda server: server.wait_until_idle("5"), TypeError, "timeout is a number of seconds, not '5'"),
        (lambda server: server.assert_not_received("Hi"), TypeError, "within is a number of seconds, not 'Hi'"),
        (lambda server: server.assert_nothing_received(-1), ValueError, "within is 0 seconds or more, not -1"),
        (lambda server: server.wait_for(subjekt="Hi"), TypeError, "subjekt is no criterion for messages: did you"),
        (lambda server: server.wait_for_async(subjekt="Hi").send(None), TypeError, "subjekt is no criterion"),
        (lambda server: server.wait_for(timeot=1), TypeError, f"timeot {MEANT} timeout?"),
        (lambda server: server.wait_for_async(cout=2).send(None), TypeError, f"cout {MEANT} count?"),
        (lambda server: server.assert_received(within=1), TypeError, f"within {MEANT} timeout?"),
        (lambda server: server.assert_not_received(timeout=1), TypeError, f"timeout {MEANT} within?"),
        (lambda server: server.assert_not_received(withn=1), TypeError, f"withn {MEANT} within?"),
        (lambda server: server.assert_delivered_exactly_once(expcted=[]), TypeError, f"expcted {MEANT} expected?"),
    ],
)
def test_mistakes_are_errors_before_anything_is_waited_for(
    server: RecordingServer, wait: Callable[[RecordingServer], object], error: type[Exception], text: str
) -> None:
    """What is no count, no time or no criterion raises TypeError or ValueError at once, which says what it should be."""
    with pytest.raises(error) as caught:
        wait(server)
    assert str(caught.value).startswith(text)


def test_for_ever_is_a_time(server: RecordingServer) -> None:
    """An infinite timeout waits for as long as it takes."""
    send(server, "Hello")
    assert len(server.wait_for(timeout=math.inf)) == 1
    server.wait_until_idle(timeout=math.inf)


@pytest.mark.parametrize(
    "wait",
    [
        lambda server: server.wait_for(2),
        lambda server: server.assert_received(timeout=LONG),
        lambda server: server.assert_not_received(within=LONG),
        lambda server: server.wait_until_idle(),
    ],
    ids=["wait_for", "assert_received", "assert_not_received", "wait_until_idle"],
)
def test_a_hook_cannot_wait(wait: Callable[[RecordingServer], object]) -> None:
    """In the server's own thread, where it would wait for itself, waiting is an error, not a dead-lock."""

    class Waiting(RecordingServer):
        def process_message(self, *args: Any, **kwargs: Any) -> None:
            """Wait; look at what is there, and change options, which a hook may do."""
            self.assert_nothing_received()
            assert self.wait_for(0) == self.wait_for(0, timeout=0) == []
            with self.options(strict=True):
                self.call(self.messages.clear)
            wait(self)

    server = Waiting().start()
    with pytest.raises(smtplib.SMTPDataError, match="451"):
        send(server, "Hello")
    with pytest.raises(RuntimeError, match="the server's own thread"):
        server.stop()


def test_an_interrupted_wait_leaves_no_watcher(server: RecordingServer) -> None:
    """Ctrl-C in a wait leaves nothing behind, nor does a function that raises."""

    def interrupt(_subject: str) -> bool:
        raise KeyboardInterrupt

    send(server, "Hello")
    with pytest.raises(KeyboardInterrupt):
        server.wait_for(subject=interrupt)
    assert server.messages._watchers == []  # noqa: SLF001 - nobody else can see it


# In tasks.


@pytest.mark.anyio
async def test_a_task_waits_while_others_run(server: RecordingServer) -> None:
    """`wait_for_async` ends with the message that another task has sent, in asyncio and in trio."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(anyio.to_thread.run_sync, send, server, "one", "two", "three")
        assert subjects(await server.wait_for_async(2)) == ["one", "two"]
    assert len(server.messages) == 3
    assert server.messages._watchers == []  # noqa: SLF001 - nobody else can see it


@pytest.mark.anyio
async def test_several_tasks_wait(server: RecordingServer) -> None:
    """Each of several tasks gets its own message; the client that sends them is a task of the same event loop."""
    found: list[str] = []

    async def wait(subject: str) -> None:
        found.extend(subjects(await server.wait_for_async(subject=subject)))

    async with await anyio.connect_tcp(*server.address) as client, anyio.create_task_group() as tasks:
        for subject in ("one", "two", "three"):
            tasks.start_soon(wait, subject)
        for subject in ("three", "one", "two"):
            await client.send(
                b"EHLO x\r\nMAIL FROM:<ada@example.org>\r\nRCPT TO:<bob@example.org>\r\nDATA\r\n"
                b"Subject: %s\r\n\r\nHi\r\n.\r\n" % subject.encode()
            )
    assert sorted(found) == ["one", "three", "two"]


@pytest.mark.anyio
async def test_a_task_waits_in_vain(server: RecordingServer) -> None:
    """A time-out in a task raises the same as in a thread, and so does a server that is stopped."""
    with pytest.raises(AssertionError, match=r"^expected 1 message with subject='Hi', found none within 0\.01 s\n"):
        await server.wait_for_async(timeout=0.01, subject="Hi")
    server.close()
    with pytest.raises(AssertionError, match="found none; nothing can come any more, the server is stopped\n"):
        await server.wait_for_async()
    assert server.messages._watchers == []  # noqa: SLF001 - nobody else can see it


@pytest.mark.anyio
async def test_a_cancelled_task_leaves_no_watcher(server: RecordingServer) -> None:
    """A task that is cancelled while it waits leaves nothing behind."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(server.wait_for_async)
        while not server.messages._watchers:  # noqa: SLF001 - nobody else can see it
            await anyio.lowlevel.checkpoint()
        tasks.cancel_scope.cancel()
    assert server.messages._watchers == []  # noqa: SLF001


@pytest.mark.anyio
async def test_who_blocks_the_event_loop_is_told(server: RecordingServer) -> None:
    """A time-out in a thread that has an event loop says how to wait there."""
    with pytest.raises(AssertionError, match=r"while the event loop of this thread was blocked: await wait_for_async"):
        server.wait_for(timeout=0.01)


@pytest.mark.anyio
async def test_a_task_cannot_wait_for_silence(server: RecordingServer) -> None:
    """A task that waits for what must not come would keep its event loop from sending it: that is an error."""
    wanted = r"^within=0\.01 would block the event loop .* await asyncio\.sleep\(…\) or trio\.sleep\(…\) instead"
    for silence in (server.assert_not_received, server.assert_nothing_received):
        with pytest.raises(RuntimeError, match=wanted):
            silence(within=0.01)
        silence()
    await anyio.to_thread.run_sync(server.assert_nothing_received, 0.01)


def test_a_message_may_come_after_the_event_loop(server: RecordingServer) -> None:
    """A message that comes when the event loop is closed, but the task was never ended, does not harm the server."""
    loop = asyncio.new_event_loop()
    task = loop.create_task(server.wait_for_async())
    while not server.messages._watchers:  # noqa: SLF001 - nobody else can see it
        loop.call_soon(loop.stop)
        loop.run_forever()
    coroutine = task.get_coro()
    assert coroutine is not None
    loop.close()
    send(server, "Hello")
    assert len(server.messages) == 1
    assert server.errors == []
    coroutine.close()  # as the collector would
    task._log_destroy_pending = False  # type: ignore[attr-defined] # noqa: SLF001 - that it is pending is the point


# Silence.


def test_idle_is_when_the_last_client_has_gone(server: RecordingServer) -> None:
    """`wait_until_idle` returns once all clients have gone, whatever they were doing."""
    server.wait_until_idle()
    with ThreadPoolExecutor(1) as pool:
        with RawClient(server.address) as one, RawClient(server.address):
            one.read_reply()
            result = pool.submit(server.wait_until_idle)
        assert result.result(LONG) is None
    server.call(lambda: None)  # and all before
    assert server._idle_calls == []  # noqa: SLF001 - nobody else can see it


def test_a_client_that_was_not_accepted_yet_is_waited_for() -> None:
    """A client whose connection the server has not accepted yet, as its thread is busy, is in flight."""
    entered, leave = threading.Event(), threading.Event()

    class Busy(RecordingServer):
        def process_message(self, *args: Any, **kwargs: Any) -> None:
            """Keep the thread busy."""
            entered.set()
            assert leave.wait(LONG)

    with Busy() as server, ThreadPoolExecutor(3) as pool:
        sending = [pool.submit(send, server, "one")]
        assert entered.wait(LONG)
        # Is connected, as far as the system is concerned, before anything was accepted.
        with RawClient(server.address) as client:
            idle = pool.submit(server.wait_until_idle, LONG)
            leave.set()
            sending[0].result(LONG)
            assert client.read_reply().startswith("220")
            assert not idle.done()
        assert idle.result(LONG) is None


def test_waiting_for_silence_does_not_depend_on_hooks() -> None:
    """A hook that does not return makes `wait_until_idle` fail in time: it does not wait for the hook."""
    entered, leave = threading.Event(), threading.Event()

    class Busy(RecordingServer):
        def process_message(self, *args: Any, **kwargs: Any) -> None:
            """Keep the thread busy."""
            entered.set()
            assert leave.wait(LONG)

    with Busy() as server, ThreadPoolExecutor(1) as pool:
        sending = pool.submit(send, server, "one")
        assert entered.wait(LONG)
        with pytest.raises(AssertionError, match=r"still connected\): C: DATA, S: 354"):
            server.wait_until_idle(0.01)
        leave.set()
        sending.result(LONG)


def test_who_is_still_connected_is_named(server: RecordingServer) -> None:
    """When clients stay, the failure names them and what they said last, also what they said to an earlier test."""
    with RawClient(server.address) as client:
        client.read_reply()
        client.ask("NOOP")
        server.clear()
        with pytest.raises(AssertionError) as caught:
            server.wait_until_idle(0.01)
        host, port = client.socket.getsockname()
    assert str(caught.value) == (
        "expected no client to be connected within 0.01 s\n"
        "Clients connected: 1\n"
        f"  {host}:{port} (still connected): C: NOOP, S: 250 2.0.0 OK"
    )


def test_who_has_not_begun_is_named_too() -> None:
    """A client that has not begun the TLS handshake, or not sent the proxy's header, has said nothing."""
    with RecordingServer(proxy_protocol=True) as server, RawClient(server.address) as client:
        with pytest.raises(AssertionError) as caught:
            server.wait_until_idle(0.01)
        host, port = client.socket.getsockname()
        assert str(caught.value).endswith(f"\n  {host}:{port}: the client said nothing")


# What comes inside a block.


def test_capture_has_what_comes_inside_a_block(server: RecordingServer) -> None:
    """`capture` collects the messages that come inside the block, whoever clears the server, and blocks may nest."""
    send(server, "before")
    with server.capture() as outer:
        send(server, "one")
        server.clear()
        with server.capture() as inner:
            assert inner == []
            send(server, "two")
        send(server, "three")
    send(server, "after")
    assert subjects(list(outer)) == ["one", "two", "three"]
    assert subjects(list(inner)) == ["two"]
    assert outer.where(subject="two").one() == inner.first() == inner.last()
    assert subjects(list(server.messages)) == ["two", "three", "after"]


def test_a_failure_tells_that_nothing_was_captured(server: RecordingServer) -> None:
    """Where the block has none, the failure does not say that the server has none, either."""
    send(server, "before")
    with server.capture() as messages:
        pass
    for captured in (messages, messages.where(subject="Hello")):
        with pytest.raises(AssertionError, match=r"found none\nNo message was captured\."):
            captured.one()


def test_a_failure_tells_what_was_captured(server: RecordingServer) -> None:
    """A failure lists the messages of the block, and nothing is collected after an exception in it."""
    with pytest.raises(AssertionError, match=r"found none\nMessages captured: 1\n  \[0\] .*'one'\n"):  # noqa: PT012,SIM117
        with server.capture() as messages:
            send(server, "one")
            messages.where(subject="two").one()
    send(server, "two")
    assert subjects(list(messages)) == ["one"]
