"""Workers: hooks that may block, for which no other client waits."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Any

import pytest
from support import RawClient

from pytest_smtpd import RecordingServer, smtpd
from pytest_smtpd.smtpd.workers import Workers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: Seconds until a test that fails gives up; no other one waits for so long.
DEADLINE = 10.0

CLOSING = "421 Service not available, closing transmission channel"
TO_CONTENT = ("EHLO client.example", "MAIL FROM:<ada@example.org>", "RCPT TO:<bob@example.org>", "DATA")


class Gate:
    """What a hook waits at until the test lets it pass."""

    def __init__(self) -> None:
        self.reached = threading.Semaphore(0)
        self.opened = threading.Event()

    def wait(self) -> None:
        """Wait, in the hook."""
        self.reached.release()
        assert self.opened.wait(DEADLINE)

    def await_hook(self) -> None:
        """Wait for a hook to wait."""
        assert self.reached.acquire(timeout=DEADLINE)


class Server(smtpd.SMTPServer):
    """Waits at a gate for each message, then does what it is told to."""

    blocking = True

    def __init__(self, hook: Callable[[], str | None] = lambda: None, **options: Any) -> None:
        super().__init__(("127.0.0.1", 0), None, **{"map": {}, **options})
        self.address: tuple[str, int] = self.socket.getsockname()
        self.gate = Gate()
        self.hook = hook
        self.threads: list[threading.Thread] = []

    def process_message(self, *args: Any, **kwargs: Any) -> str | None:
        """Wait, and call the hook."""
        self.threads.append(threading.current_thread())
        self.gate.wait()
        return self.hook()


@pytest.fixture(autouse=True)
def _no_thread_left_behind() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


@contextlib.contextmanager
def sending(address: tuple[str, int]) -> Iterator[RawClient]:
    """Give a client that has sent a message, and waits for the answer to it."""
    with RawClient(address) as client:
        client.read_reply()
        for command in TO_CONTENT:
            assert client.ask(command)[0] in "23"
        client.send(b"Subject: x\r\n\r\n.\r\n")
        yield client


def in_thread(call: Callable[[], None]) -> threading.Thread:
    """Have something called in a thread of its own."""
    thread = threading.Thread(target=call)
    thread.start()
    return thread


def test_others_are_served_while_a_hook_blocks() -> None:
    """While `process_message` blocks for one client, all others are served; then it has its answer."""
    with Server(lambda: "550 No") as server, sending(server.address) as client:
        server.gate.await_hook()
        with RawClient(server.address) as other:
            assert other.read_reply().startswith("220 ")
            assert other.ask("NOOP") == "250 OK"
        server.gate.opened.set()
        assert client.read_reply() == "550 No"
        assert client.ask("NOOP") == "250 OK"


def test_hooks_block_at_the_same_time() -> None:
    """`process_message` is called for several clients at once, each in a thread that says what it is for."""
    with Server() as server, sending(server.address) as client, sending(server.address) as other:
        server.gate.await_hook()
        server.gate.await_hook()
        server.gate.opened.set()
        assert [client.read_reply(), other.read_reply()] == ["250 OK", "250 OK"]
        assert len({thread.ident for thread in server.threads}) == 2
        assert {thread.name[:14] for thread in server.threads} == {"Server worker_"}


def test_no_more_hooks_block_than_there_are_workers() -> None:
    """A call for which no thread is left waits until one is."""
    workers = Workers("worker", 1)
    gate, done = Gate(), threading.Event()
    workers.submit(gate.wait)
    gate.await_hook()
    workers.submit(done.set)
    assert not done.is_set()
    gate.opened.set()
    assert done.wait(DEADLINE)
    workers.shut_down()
    workers.join()


def test_workers_are_used_again() -> None:
    """What was shut down may be used again, with other threads."""
    workers = Workers("worker", 1)
    for _ in range(2):
        done = threading.Event()
        workers.submit(done.set)
        assert done.wait(DEADLINE)
        workers.shut_down()
        workers.join()
    workers.shut_down()
    workers.join()


def test_calls_that_wait_are_forgotten_at_the_end() -> None:
    """Shutting down waits for nothing, and what has not begun by then never does."""
    workers = Workers("worker", 1)
    gate, done = Gate(), threading.Event()
    workers.submit(gate.wait)
    workers.submit(done.set)
    gate.await_hook()
    workers.shut_down()
    gate.opened.set()
    workers.join()
    assert not done.is_set()


def test_several_threads_wait_for_workers() -> None:
    """Any number of threads may wait for the workers to end."""
    workers = Workers("worker", 1)
    gate = Gate()
    workers.submit(gate.wait)
    gate.await_hook()
    workers.shut_down()
    waiting = [in_thread(workers.join) for _ in range(3)]
    gate.opened.set()
    for thread in waiting:
        thread.join(DEADLINE)
    workers.join()


def test_what_a_worker_is_to_do_afterwards() -> None:
    """A call may have something called behind it, in the same thread, also if it fails."""
    workers = Workers("worker", 1)
    done: list[threading.Thread] = []
    ended = threading.Event()

    def fail() -> None:
        assert workers.runs_here
        workers.afterwards(lambda: done.append(threading.current_thread()))
        workers.afterwards(ended.set)
        raise KeyError

    workers.submit(fail)
    assert ended.wait(DEADLINE)
    assert done[0].name == "worker_0"
    assert not workers.runs_here
    workers.shut_down()
    workers.join()


def test_an_exception_reaches_who_stops_the_server() -> None:
    """A hook that fails in a worker is answered with 451, and its exception is raised by `stop`."""
    server = Server(lambda: str(1 / 0)).start()
    server.gate.opened.set()
    with sending(server.address) as client:
        assert client.read_reply().startswith("451 ")
    with pytest.raises(ZeroDivisionError):
        server.stop()


def test_an_interrupt_in_a_worker_is_an_exception() -> None:
    """A KeyboardInterrupt that a hook raises in a worker is kept as any other exception: it interrupts nobody there."""

    def hook() -> None:
        raise KeyboardInterrupt

    server = Server(hook).start()
    server.gate.opened.set()
    with sending(server.address) as client:
        assert client.read_reply().startswith("451 ")
    with pytest.raises(KeyboardInterrupt):
        server.stop()


def test_stopping_waits_for_the_hook() -> None:
    """A server that is stopped tells the client so at once, and waits for the hook, whose exception it raises."""
    server = Server(lambda: str(1 / 0)).start()
    with sending(server.address) as client:
        server.gate.await_hook()
        errors: list[Exception] = []

        def stop() -> None:
            try:
                server.stop()
            except ZeroDivisionError as error:
                errors.append(error)

        stopping = in_thread(stop)
        assert client.read_reply() == CLOSING
        assert stopping.is_alive()
        server.gate.opened.set()
        stopping.join(DEADLINE)
    assert len(errors) == 1


def test_a_client_that_does_not_wait_for_the_hook() -> None:
    """What a hook accepts is accepted, also when the client has gone meanwhile; the server goes on."""

    class Recording(RecordingServer):
        blocking = True

        def process_message(self, *args: Any, **kwargs: Any) -> None:
            gate.wait()

    gate = Gate()
    with Recording() as server:
        with sending(server.address):
            gate.await_hook()
        with sending(server.address) as client:
            gate.await_hook()
            gate.opened.set()
            assert client.read_reply() == "250 2.0.0 OK"
        assert len(server.wait_for(2)) == 2


def test_an_answer_that_comes_too_late() -> None:
    """What a hook answers when the session has been answered by somebody else is not sent any more."""
    channels: list[smtpd.SMTPChannel] = []

    class Channel(smtpd.SMTPChannel):
        def connection_made(self) -> None:
            channels.append(self)
            super().connection_made()

    server = Server(lambda: "550 No")
    server.channel_class = Channel
    with server, sending(server.address) as client:
        server.gate.await_hook()
        channels[0].conn.call(lambda: channels[0].push("250 Meanwhile"))
        assert client.read_reply() == "250 Meanwhile"
        server.gate.opened.set()
        server.workers.shut_down()
        server.workers.join()
        assert client.ask("NOOP") == "250 OK"


def test_a_hook_that_closes_its_server() -> None:
    """A hook in a worker may close its server: its client has the answer first, then the server closes."""
    server = Server()
    server.hook = lambda: server.close() or "250 Enough"  # type: ignore[func-returns-value] # the shortest way
    server.gate.opened.set()
    server.start()
    with sending(server.address) as client:
        assert [client.read_reply(), client.read_reply()] == ["250 Enough", CLOSING]
    server.stop()


def test_a_hook_that_closes_a_server_that_is_closed() -> None:
    """A hook may close its server though somebody else has done so meanwhile."""
    server = Server()

    def close() -> None:
        assert server._ended.wait(DEADLINE)  # noqa: SLF001 - nobody else needs to wait for just this
        server.close()

    server.hook = close
    server.start()
    with sending(server.address):
        server.gate.await_hook()
        server.gate.opened.set()
        server.stop()


def test_blocking_hooks_and_the_loop() -> None:
    """A server that `smtpd.loop` serves has workers, too, whose answers come while it waits or does not."""
    servers: dict[int, smtpd.SMTPServer] = {}
    server = Server(map=servers)
    server.gate.opened.set()
    looping = in_thread(lambda: smtpd.loop(map=servers))
    with sending(server.address) as client:
        assert client.read_reply() == "250 OK"
    server.stop()
    looping.join(DEADLINE)
    assert not looping.is_alive()
