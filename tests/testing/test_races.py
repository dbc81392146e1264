"""Races: in each test another thread, a hook or a signal comes just where it might do harm, once."""

from __future__ import annotations

import contextlib
import gc
import smtplib
import socket
import threading
from typing import TYPE_CHECKING, Any

import pytest
from support import RawClient, in_thread

from pytest_smtpd import RecordingServer, smtpd
from pytest_smtpd.network.loop import ACCEPT_BURST, Loop

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

#: Seconds until a test that fails gives up; no other one waits for so long.
DEADLINE = 10.0


def do_in_thread(call: Callable[[], object]) -> None:
    """Have something done in another thread, and wait for it."""
    with in_thread(call):
        pass


def serves(server: smtpd.SMTPServer) -> bool:
    """Whether clients are greeted."""
    try:
        with RawClient(server.socket.getsockname()) as client:
            return client.read_reply().startswith("220")
    except OSError:
        return False


def send(server: smtpd.SMTPServer, content: str = "Subject: x\r\n\r\n") -> None:
    """Send a message."""
    host, port = server.socket.getsockname()[:2]
    with smtplib.SMTP(host, port, timeout=DEADLINE) as client:
        client.sendmail("a@example.org", "b@example.org", content)


class Visited:
    """Lets others in, once: `come_in` is called where a visitor may come, and calls what was `invited`."""

    def __init__(self) -> None:
        self.invited: Callable[[], object] | None = None

    def come_in(self) -> None:
        """Call whoever was invited, the first time."""
        visitor, self.invited = self.invited, None
        if visitor is not None:
            visitor()


class Classic(smtpd.SMTPServer):
    """A server of the kind that `smtpd.loop` serves, with a map of its own."""

    def __init__(self, services: dict[int, Any] | None = None) -> None:
        super().__init__(("127.0.0.1", 0), None, map={} if services is None else services)

    def process_message(self, *_arguments: Any, **_keywords: Any) -> None:
        """Accept everything."""


# What hooks raise.


@pytest.mark.parametrize("hook", ["handle_accepted", "forget", "stopped", "process_message"])
@pytest.mark.parametrize("error", [pytest.fail.Exception, KeyboardInterrupt, SystemExit])
def test_no_hook_ends_the_thread_that_serves(hook: str, error: type[BaseException]) -> None:
    """Whatever a hook raises, the server goes on serving, and raises it where it is stopped."""
    visited = Visited()

    def fail(self: RecordingServer, *arguments: Any, **keywords: Any) -> Any:
        result = getattr(RecordingServer, hook)(self, *arguments, **keywords)
        visited.come_in()
        return result

    def refuse() -> None:
        raise error

    server = type("Failing", (RecordingServer,), {hook: fail})().start()
    visited.invited = refuse
    with contextlib.suppress(OSError, smtplib.SMTPException):
        send(server)
    assert serves(server)
    with pytest.raises(error):
        server.stop()
    assert server.is_closed


def test_calls_are_made_when_ctrl_c_ends_the_loop() -> None:
    """Who closes a server while Ctrl-C ends `smtpd.loop` doesn't wait for ever."""
    services: dict[int, Any] = {}
    closers: list[threading.Thread] = []

    class Interrupted(smtpd.SMTPChannel):
        def smtp_NOOP(self, _arg: str | None) -> None:  # noqa: N802 - smtpd's
            closers.append(threading.Thread(target=server.close, daemon=True))
            closers[0].start()
            closers[0].join(0.2)  # by then it has asked for the end, and waits for it
            raise KeyboardInterrupt

    server = Classic(services)
    server.channel_class = Interrupted

    def ask() -> None:
        with RawClient(server.socket.getsockname()) as client, contextlib.suppress(OSError):
            client.read_reply()
            client.send(b"NOOP\r\n")
            client.read_reply()

    client = threading.Thread(target=ask, daemon=True)
    client.start()
    smtpd.loop(map=services)
    for thread in (*closers, client):
        thread.join(DEADLINE)
        assert not thread.is_alive()
    assert server.is_closed


def test_what_the_end_of_serving_raises_is_raised_by_stop() -> None:
    """What `stopped` raises under `smtpd.loop` reaches whoever stops the server."""

    class Failing(Classic):
        def stopped(self) -> None:
            raise ValueError

    services: dict[int, Any] = {}
    server = Failing(services)
    with in_thread(lambda: smtpd.loop(map=services)):
        assert serves(server)
        with pytest.raises(ValueError):  # noqa: PT011 - it has no text
            server.stop()


@pytest.mark.parametrize("ignore_all", [False, True])
def test_close_all_closes_all(*, ignore_all: bool) -> None:
    """`smtpd.close_all` closes all servers, also where one raises when it is closed."""

    class Failing(Classic):
        def stopped(self) -> None:
            raise ValueError

    services: dict[int, Any] = {}
    servers = [Failing(services), Failing(services)]
    with contextlib.nullcontext() if ignore_all else pytest.raises(ExceptionGroup):
        smtpd.close_all(services, ignore_all=ignore_all)
    assert all(server.is_closed for server in servers)


def test_errors_are_taken_once() -> None:
    """Of two threads that take the errors at the same time one gets each of them."""
    visited = Visited()

    class Watched(list[BaseException]):
        def __getitem__(self, index: Any) -> Any:
            found = super().__getitem__(index)
            visited.come_in()
            return found

    taken: list[list[BaseException]] = []
    thread = threading.Thread(target=lambda: taken.append(server.take_errors()))
    with RecordingServer() as server:
        error = ValueError()
        server.errors = Watched([error])
        visited.invited = thread.start
        taken.append(server.take_errors())
        thread.join(DEADLINE)
    assert sorted(taken) == [[], [error]]


# What is begun and ended at the same time.


def test_a_break_that_another_thread_ends_by_stop_stays_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who stops a server during `down` has stopped it, also in the very moment in which the break ends."""
    with RecordingServer() as server:
        begin = server._begin  # noqa: SLF001 - to come before it

        def stop_before(**options: Any) -> Loop | None:
            do_in_thread(server.stop)
            return begin(**options)

        monkeypatch.setattr(server, "_begin", stop_before)
        with server.down():
            pass
        assert server.is_closed


def test_a_server_can_be_started_as_soon_as_it_is_down() -> None:
    """Another thread that starts the server while it goes down gets its port."""
    visited = Visited()

    class Visitable(RecordingServer):
        def _join(self, thread: threading.Thread | None) -> None:
            super()._join(thread)
            visited.come_in()

    with Visitable() as server:
        visited.invited = lambda: do_in_thread(server.start)
        with server.down():
            assert serves(server)
        assert serves(server)


def test_a_start_ends_nothing_that_another_has_begun() -> None:
    """Of two threads that start a server whose thread is about to end, none ends what the other has begun."""
    visited = Visited()

    class Visitable(RecordingServer):
        def close(self) -> None:
            visited.come_in()
            super().close()

        def _wait_for_end(self, *served: Any) -> None:
            visited.come_in()
            super()._wait_for_end(*served)

    with Visitable() as server:
        assert server.loop
        server.loop.call(server.close)  # as a hook does: its thread ends, and nobody joins it
        while server.loop:
            pass
        clients: list[RawClient] = []

        def start() -> None:
            do_in_thread(server.start)
            clients.append(RawClient(server.address))

        visited.invited = start
        do_in_thread(server.start)
        [client] = clients
        with client:
            assert client.read_reply().startswith("220")
            assert client.ask("NOOP").startswith("250")


def test_a_start_without_a_thread_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system has no thread left, `start` raises that, and the server can be started later."""
    server = RecordingServer()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", lambda _thread: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            server.start()
    assert server.is_closed
    with server:
        assert serves(server)


def test_a_blocking_hook_can_not_start_its_server() -> None:
    """A hook in a worker that starts the server that `smtpd.loop` serves gets a RuntimeError, as any hook does."""

    class Starting(Classic):
        blocking = True

        def process_message(self, *_arguments: Any, **_keywords: Any) -> None:
            self.start()

    services: dict[int, Any] = {}
    server = Starting(services)
    with in_thread(lambda: smtpd.loop(map=services)):
        with pytest.raises(smtplib.SMTPDataError, match="451"):
            send(server)
        with pytest.raises(RuntimeError, match="a hook can't start"):
            server.stop()


def test_a_hook_closes_the_server_that_nobody_runs_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hook may close the server also where another thread calls it, before the server's own has begun."""
    run, go = Loop.run, threading.Event()
    monkeypatch.setattr(Loop, "run", lambda loop: (go.wait(DEADLINE), run(loop)))

    class Closing(Classic):
        def handle_accepted(self, conn: Any, addr: Any) -> smtpd.SMTPChannel:
            self.close()
            return super().handle_accepted(conn, addr)

    server = Closing()
    with RawClient(server.socket.getsockname()):
        server.start()

        def look() -> None:
            with server.when_idle(lambda: None):
                pass

        do_in_thread(look)
        assert server.is_closed
        go.set()
        server.stop()


def test_serve_forever_waits_for_hooks() -> None:
    """`serve_forever` returns when the last hook has: one that goes on could close what serves next."""
    slow, go = threading.Event(), threading.Event()
    done: list[str] = []

    class Slow(Classic):
        blocking = True

        def process_message(self, *arguments: Any, **_keywords: Any) -> None:
            if arguments[3] == b"slow":
                slow.set()
                go.wait(DEADLINE)
                done.append("slow")
            self.close()

    def send_quietly(content: str) -> None:
        with contextlib.suppress(OSError, smtplib.SMTPException):
            send(server, content)

    def send_behind() -> None:
        slow.wait(DEADLINE)
        send_quietly("quick")

    server = Slow()
    with in_thread(lambda: send_quietly("slow")), in_thread(send_behind):
        threading.Timer(0.1, go.set).start()
        server.serve_forever()
        assert done == ["slow"]


# smtpd.loop.


class VisitedMap(dict[int, Any]):
    """A map of servers in which somebody comes behind a look at all of them."""

    def __init__(self) -> None:
        super().__init__()
        self.visited = Visited()

    def values(self) -> Any:
        """Return them; then others come."""
        values = list(super().values())
        self.visited.come_in()
        return values


def test_loop_does_not_take_a_servers_own_loop() -> None:
    """A server that is started when `smtpd.loop` has looked at all keeps its loop, and the others have theirs."""
    services = VisitedMap()
    first, second = Classic(services), Classic(services)
    services.visited.invited = first.start
    with in_thread(lambda: smtpd.loop(map=services)):
        assert serves(first)
        assert serves(second)
        assert first.loop is not second.loop
        first.stop()
        assert serves(second)
        second.stop()


def test_a_client_that_takes_nothing_does_not_outlive_its_server() -> None:
    """A server that is closed has no clients left, also where `smtpd.loop` serves others still."""
    services: dict[int, Any] = {}
    first, second = Classic(services), Classic(services)
    with in_thread(lambda: smtpd.loop(map=services)):
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.connect(first.socket.getsockname())
            client.settimeout(0.3)
            with contextlib.suppress(OSError):
                while True:
                    client.sendall(b"HELP\r\n" * 1000)
            first.close()
            assert not first._channels  # noqa: SLF001 - nothing else tells
        second.close()


def test_a_channel_that_is_closed_at_once_is_closed() -> None:
    """`handle_accepted` may close the channel that it makes: the client is not greeted."""

    class Closing(Classic):
        def handle_accepted(self, conn: Any, addr: Any) -> smtpd.SMTPChannel:
            channel = super().handle_accepted(conn, addr)
            channel.close()
            return channel

    with Closing() as server, RawClient(server.socket.getsockname()) as client:
        assert client.read_reply() == ""
        server.stop()
        assert not server._channels  # noqa: SLF001 - nothing else tells


def test_who_makes_no_channel_refuses_the_client() -> None:
    """`handle_accepted` may close the connection instead of making a channel, as in smtpd."""

    class Refusing(Classic):
        def handle_accepted(self, conn: Any, _addr: Any) -> None:  # type: ignore[override]
            conn.close()

    with Refusing() as server, RawClient(server.socket.getsockname()) as client:
        assert client.read_reply() == ""


def test_the_file_of_a_socket_may_be_gone(tmp_path: Path) -> None:
    """A Unix socket's path that can't be removed doesn't keep the server from stopping."""
    path = tmp_path / "socket"
    with RecordingServer(str(path)) as server:
        path.unlink()
        path.mkdir()
        do_in_thread(server.stop)
        assert server.is_closed


# What tests do meanwhile.


def test_a_wait_ends_with_the_server() -> None:
    """A server that is stopped just when a wait begins ends it."""
    visited = Visited()

    class Visitable(RecordingServer):
        @property
        def loop(self) -> Loop | None:
            loop = self._loop
            if threading.current_thread() is waiting:
                visited.come_in()
            return loop

    with Visitable() as server:
        waiting = threading.current_thread()
        visited.invited = lambda: do_in_thread(server.stop)
        with pytest.raises(AssertionError, match="the server is stopped"):
            server.wait_for(timeout=DEADLINE)


def test_a_server_may_be_stopped_while_it_flaps() -> None:
    """A stop that waits for a hook while the server should go down raises nothing."""
    entered, go = threading.Event(), threading.Event()

    class Slow(RecordingServer):
        def process_message(self, *_arguments: Any, **_keywords: Any) -> None:
            entered.set()
            go.wait(DEADLINE)

    def try_to_send() -> None:
        with contextlib.suppress(OSError, smtplib.SMTPException):
            send(server)

    with Slow() as server:
        with server.flapping(up=0.2, down=0.01), in_thread(try_to_send):
            assert entered.wait(DEADLINE)
            threading.Timer(0.4, go.set).start()  # behind the moment for the break
            server.stop()
        assert server.is_closed


def test_nobody_begins_to_serve_amid_a_call() -> None:
    """What is changed before a server serves is changed when it begins, in whatever thread that is."""
    server = RecordingServer()
    starting = threading.Thread(target=server.start)

    def change() -> None:
        starting.start()
        starting.join(0.2)
        assert server.loop is None

    server.call(change)
    starting.join(DEADLINE)
    assert serves(server)
    server.stop()


def test_a_hook_may_change_options() -> None:
    """A hook of the server's own thread changes options at once."""

    class Changing(RecordingServer):
        def process_message(self, *_arguments: Any, **_keywords: Any) -> str:
            with self.options(hostname="mx.example.org"):
                return f"550 {self.settings.hostname}"

    with Changing() as server, pytest.raises(smtplib.SMTPDataError, match=r"mx\.example\.org"):
        send(server)


def test_options_are_what_was_noted_of_them() -> None:
    """Threads that change the options at the same time leave no others than those that are noted."""
    visited = Visited()

    class Visitable(RecordingServer):
        def call(self, call: Callable[[], object]) -> None:
            visited.come_in()
            super().call(call)

    with Visitable() as server:
        visited.invited = lambda: do_in_thread(lambda: server.reset(hostname="b.example"))
        server.reset(hostname="a.example")
        assert server.settings.hostname == "a.example"
        server.reset(hostname="b.example")
        assert server.settings.hostname == "b.example"


def test_the_garbage_collector_may_end_a_capture() -> None:
    """A `capture` that nobody has ended ends when it is collected, in whatever thread and moment that is."""

    def abandon(server: RecordingServer) -> None:
        capture = server.capture()
        capture.__enter__()
        cycle: list[Any] = [capture]
        cycle.append(cycle)

    with RecordingServer() as server:
        gc.disable()
        try:
            abandon(server)
            with server.messages.watched(gc.collect):
                send(server)
        finally:
            gc.enable()
        server.assert_received()


def test_nobody_is_idle_who_waits_to_be_accepted() -> None:
    """`wait_until_idle` waits for all clients that are connected, however many wait to be accepted."""
    gate = threading.Event()
    with RecordingServer() as server, contextlib.ExitStack() as stack:
        server.on("CONNECT").disconnect()
        assert server.loop
        server.loop.call(lambda: bool(gate.wait(DEADLINE)) or None)  # type: ignore[arg-type]
        count = ACCEPT_BURST * 2 + 1
        for _ in range(count):
            stack.enter_context(RawClient(server.address))
        threading.Timer(0.1, gate.set).start()
        server.wait_until_idle()
        assert len(server.dialogues) == count
