"""SMTPServer's life, and smtpd.loop: through real connections."""

from __future__ import annotations

import contextlib
import gc
import itertools
import select
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from support import RawClient, in_thread

import pytest_smtpd
from pytest_smtpd import RecordingServer, smtpd
from pytest_smtpd.smtpd.server import socket_map

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: Seconds until a test that fails gives up; no other one waits for so long.
DEADLINE = 10.0

CONTENT = b"Subject: hello\r\n\r\nworld\r\n"
CLOSING = "421 Service not available, closing transmission channel"
LOCAL_ERROR = "451 Error: requested action aborted: local error in processing"


def resources() -> tuple[set[threading.Thread], set[str]]:
    """Return the threads and, where the system tells them, the open file descriptors with what they are."""
    descriptors = set()
    for path in Path("/proc/self/fd").glob("*"):
        with contextlib.suppress(FileNotFoundError):  # the one that lists the directory
            descriptors.add(f"{path.name} {path.readlink()}")
    return set(threading.enumerate()), descriptors


@contextlib.contextmanager
def nothing_left_behind() -> Iterator[None]:
    """Hold that no thread, socket and server that came within is still there, without help by the collector."""
    gc.collect()
    (threads, descriptors), servers = resources(), dict(socket_map)
    yield
    threads_after, descriptors_after = resources()
    assert threads_after - threads == set()
    assert descriptors_after - descriptors == set()
    assert socket_map == servers


@pytest.fixture(autouse=True)
def _nothing_left_behind() -> Iterator[None]:
    """Hold it for every test here."""
    with nothing_left_behind():
        yield


class Server(smtpd.SMTPServer):
    """A server that keeps what it is given; `hook` may do something first, and answer."""

    hook: Callable[[], str | None] = staticmethod(lambda: None)

    def __init__(self, localaddr: tuple[str, int] = ("127.0.0.1", 0), **options: Any) -> None:
        super().__init__(localaddr, None, **options)
        self.map: dict[int, smtpd.SMTPServer] | None = options.get("map")
        self.address: tuple[str, int] = self.socket.getsockname()[:2]
        self.received: list[tuple[str, list[str], Any]] = []
        self.threads: set[threading.Thread] = set()

    def process_message(
        self, peer: Any, mailfrom: str, rcpttos: list[str], data: bytes | str, **kwargs: Any
    ) -> str | None:
        """Keep it."""
        self.threads.add(threading.current_thread())
        self.received.append((mailfrom, rcpttos, data))
        return self.hook()


@pytest.fixture
def server() -> Iterator[Server]:
    """Return a server that is not running, and that `smtpd.loop()` doesn't know."""
    server = Server(map={})
    yield server
    server.close()


@pytest.fixture
def classic() -> Iterator[Callable[[], Server]]:
    """Return a function that makes a server of the kind that `smtpd.loop()` serves."""
    with contextlib.ExitStack() as stack:
        yield lambda: stack.enter_context(contextlib.closing(Server()))


def failing(*errors: Exception) -> Callable[[], None]:
    """Return a hook that raises one after the other."""
    rest = iter(errors)

    def hook() -> None:
        raise next(rest)

    return hook


def greeting(server: Server) -> str:
    """Return the code with which a server greets."""
    with RawClient(server.address) as client:
        return client.read_reply()[:3]


def is_open(server: Server) -> bool:
    """Whether a server takes connections."""
    try:
        return greeting(server) == "220"
    except ConnectionError:  # refused; or reset, by a server that was about to close
        return False


def wait_until_served(server: Server) -> None:
    """Wait until another thread serves this server.

    Without connecting to it: who connects while a listener is closed and opened again may be left on a
    connection that only its own side knows of.
    """
    while not server._serves_by_itself:  # noqa: SLF001
        pass


def advance(client: RawClient, *lines: str) -> list[str]:
    """Read the greeting, send command lines one by one, and return the codes of their replies."""
    client.read_reply()
    return [client.ask(line)[:3] for line in lines]


ENVELOPE = ["HELO client", "MAIL FROM:<a@example.org>", "RCPT TO:<b@example.org>", "DATA"]


def send(client: RawClient) -> str:
    """Send a message in a new session and return the answer to it."""
    assert advance(client, *ENVELOPE)[-1] == "354"
    client.send(CONTENT + b".\r\n")
    return client.read_reply()


def mail(server: Server) -> str:
    """Send a message to a server and return its answer."""
    with RawClient(server.address) as client:
        return send(client)


def drain(client: RawClient) -> None:
    """Read to the end of the connection."""
    while client.read_reply():
        pass


# Binding.


def test_the_constructor_binds_and_listens(server: Server) -> None:
    """A new server has its port, which takes connections; they are served as soon as it is started."""
    with RawClient(server.address) as client:
        server.start()
        assert client.read_reply().startswith("220 ")


def test_a_taken_port_is_an_error_in_the_caller(server: Server) -> None:
    """The constructor raises OSError when it can't bind."""
    with pytest.raises(OSError, match="in use"):
        Server(server.address)


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this machine has no IPv6")
def test_a_server_on_ipv6() -> None:
    """A server listens on ::1 as well; `peer` has the client's address."""
    with Server(("::1", 0), map={}) as server:
        assert mail(server) == "250 OK"


def test_smtputf8_and_decoded_data_exclude_each_other() -> None:
    """enable_SMTPUTF8 with decode_data is a ValueError, and leaves no socket."""
    with pytest.raises(ValueError, match="decode_data"):
        Server(enable_SMTPUTF8=True, decode_data=True)


# The order of things.


def _with(server: Server) -> None:
    with server as entered:
        assert entered is server
        assert is_open(server)


def _serve_forever(server: Server) -> None:
    with in_thread(server.serve_forever) as thread:
        wait_until_served(server)
        while thread.is_alive():  # a server that was open before may be closed before the other thread comes
            server.close()
            thread.join(0.01)


STEPS: dict[str, Callable[[Server], object]] = {
    "start": Server.start,
    "stop": Server.stop,
    "close": Server.close,
    "with": _with,
    "serve_forever": _serve_forever,
}


@pytest.mark.parametrize("steps", list(itertools.product(STEPS, repeat=3)), ids=" ".join)
def test_every_order_of_steps_is_fine(server: Server, steps: tuple[str, ...]) -> None:
    """A server is open after `start` and closed after all else, whatever was done to it before."""
    for step in steps:
        STEPS[step](server)
        assert is_open(server) == (step == "start")


def test_with_may_be_nested(server: Server) -> None:
    """The inner of two with-statements ends a server; the outer one finds it closed."""
    with server:
        with server:
            assert is_open(server)
        assert not is_open(server)


def test_a_with_body_may_stop_the_server(server: Server) -> None:
    """A server that is stopped in the body of its with-statement may be started again there."""
    with server:
        server.stop()
        server.start()
        assert is_open(server)
    assert not is_open(server)


def test_start_returns_the_server(server: Server) -> None:
    """`start` returns the server, so that it can be made and started in one line."""
    assert server.start() is server


def test_the_thread_has_a_name(server: Server) -> None:
    """The thread says in its name which server on which address it serves; hooks are called in it alone."""
    server.start()
    mail(server)
    mail(server)
    (thread,) = server.threads
    assert "Server" in thread.name
    assert str(server.address[1]) in thread.name


def test_a_server_keeps_its_port(server: Server) -> None:
    """A server that is started again listens on the same port, and takes messages as before."""
    for _ in range(3):
        with server:
            assert mail(server) == "250 OK"
    assert len(server.received) == 3


@pytest.mark.parametrize("address", ["127.0.0.1", ("127.0.0.1", "25")])
def test_an_address_is_a_host_and_a_port(address: Any) -> None:
    """What is no pair of a host and a number is a TypeError that shows it."""
    with pytest.raises(TypeError, match="an address is \\(host, port\\), not "):
        Server(address, map={})


def test_a_restart_on_a_port_that_someone_else_has_got(server: Server) -> None:
    """`start` raises OSError when the port is taken meanwhile, leaves nothing, and works when it is free again."""
    server.stop()
    with Server(server.address, map={}), nothing_left_behind(), pytest.raises(OSError, match="in use"):
        server.start()
    assert not is_open(server)
    with server:
        assert is_open(server)


def test_starting_and_stopping_200_times(server: Server) -> None:
    """Starts and stops in quick succession leave nothing behind, with clients and without."""
    with contextlib.ExitStack() as stack:
        for number in range(200):
            server.start()
            if number % 2:
                stack.enter_context(RawClient(server.address))
            server.stop()
    assert not is_open(server)


@pytest.mark.parametrize("others", ["start stop", "start start", "stop stop", "start stop stop", "close start close"])
def test_threads_that_race(server: Server, others: str) -> None:
    """Threads that start and stop one server at the same time do no harm: it can be used and stopped afterwards."""
    failures: list[BaseException] = []

    def race(step: str, barrier: threading.Barrier) -> None:
        barrier.wait(DEADLINE)
        try:
            STEPS[step](server)
        except BaseException as error:  # noqa: BLE001 - told below
            failures.append(error)

    steps = others.split()
    for number in range(40):
        if number % 2:
            server.start()
        barrier = threading.Barrier(len(steps))
        with contextlib.ExitStack() as stack:
            for step in steps:
                stack.enter_context(in_thread(lambda step=step, barrier=barrier: race(step, barrier)))  # type: ignore[misc]  # its defaults
        assert failures == []
        server.start()
        assert is_open(server)
        server.stop()
        assert not is_open(server)


# The end of sessions.


class Aware(Server):
    """A server that tells when it has forgotten a channel."""

    def __init__(self) -> None:
        super().__init__(map={})
        self.forgotten = threading.Event()

    def forget(self, channel: smtpd.SMTPChannel) -> None:
        """Tell."""
        super().forget(channel)
        self.forgotten.set()


STAGES = {"greeted": 0, "after HELO": 1, "after MAIL": 2, "after RCPT": 3, "after DATA": 4}


@pytest.mark.parametrize(
    ("commands", "content"),
    [
        *(pytest.param(commands, b"", id=stage) for stage, commands in STAGES.items()),
        pytest.param(4, CONTENT, id="amid content"),
        pytest.param(4, CONTENT + b".\r", id="an octet before the end of content"),
        pytest.param(4, bytes(100_000), id="amid large content"),
    ],
)
@pytest.mark.parametrize("end", ["stop", "close"])
def test_an_open_session_is_told_of_the_end(server: Server, end: str, commands: int, content: bytes) -> None:
    """`stop` and `close` answer open sessions with 421, whatever they are at; nothing is processed."""
    server.start()
    with RawClient(server.address) as client:
        advance(client, *ENVELOPE[:commands])
        client.send(content)
        STEPS[end](server)
        assert client.read_reply() == CLOSING
        assert client.read_reply() == ""
    assert server.received == []


def test_a_client_that_never_reads_does_not_keep_a_server_from_stopping(server: Server) -> None:
    """`stop` waits for no client, not even for one to which replies pile up."""
    reply = "250 " + 500 * "x"
    server.channel_class = type("Verbose", (smtpd.SMTPChannel,), {"smtp_NOOP": lambda channel, _: channel.push(reply)})
    server.start()
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(server.address)
        client.settimeout(0)
        with contextlib.suppress(BlockingIOError, ConnectionError):
            while True:
                # Until the server reads no more, and is asked no more.
                client.send(b"NOOP\r\n" * 10_000)
                if not select.select([], [client], [], 0.1)[1]:
                    break
        server.stop()
        assert not is_open(server)


def test_a_half_closed_client_gets_its_replies(server: Server) -> None:
    """A client that has sent everything and half-closed is answered to the last command, then disconnected."""
    server.start()
    with RawClient(server.address) as client:
        client.read_reply()
        client.send("".join(f"{line}\r\n" for line in ENVELOPE).encode() + CONTENT + b".\r\nNOOP\r\n")
        client.socket.shutdown(socket.SHUT_WR)
        assert [client.read_reply()[:3] for _ in range(7)] == ["250", "250", "250", "354", "250", "250", ""]
    assert len(server.received) == 1


def test_a_client_that_leaves_amid_content_leaves_nothing() -> None:
    """A message of which the end did not come is not processed, and its session is forgotten."""
    with Aware() as server:
        with RawClient(server.address) as client:
            advance(client, *ENVELOPE)
            client.send(CONTENT)
        assert server.forgotten.wait(DEADLINE)
        assert server.received == []
        assert mail(server) == "250 OK"
    assert len(server.received) == 1


@pytest.mark.parametrize("method", ["end", "connection_lost"])
def test_a_channel_that_fails_does_not_keep_a_server_from_stopping(server: Server, method: str) -> None:
    """A server stops although a channel raises at the end, and `stop` raises that."""
    error = RuntimeError("the end")

    def end(_channel: smtpd.SMTPChannel, *_reply: object) -> None:
        raise error

    server.channel_class = type("FailingChannel", (smtpd.SMTPChannel,), {method: end})
    server.start()
    with RawClient(server.address) as client:
        client.read_reply()
        with pytest.raises(RuntimeError, match="the end"):
            server.stop()
        assert client.read_reply() in {CLOSING, ""}
    assert not is_open(server)


# Stopping from within.


RUNS: dict[str, Callable[[Server], object]] = {
    "start": Server.start,
    "serve_forever": Server.serve_forever,
    "loop": lambda server: smtpd.loop(map=server.map),
}


@pytest.mark.parametrize("how", RUNS)
def test_process_message_may_close_its_server(server: Server, how: str) -> None:
    """A hook that closes its server ends it without a deadlock; its own client is answered first, then told so."""
    server.hook = server.close
    with in_thread(lambda: RUNS[how](server)), RawClient(server.address) as client:
        assert send(client) == "250 OK"
        assert client.read_reply() in {CLOSING, ""}
    server.stop()
    assert not is_open(server)
    assert len(server.received) == 1


def test_a_server_that_its_hook_has_closed_can_be_started_again(server: Server) -> None:
    """`start` after a `close` in a hook serves again, also without a `stop` between."""
    server.hook = server.close
    server.start()
    with RawClient(server.address) as client:
        send(client)
        drain(client)
    server.hook = Server.hook
    server.start()
    assert mail(server)[:3] == "250"


def test_a_hook_cannot_start_its_server_again(server: Server) -> None:
    """A hook that closes its server and starts it again gets a RuntimeError, and the server is closed."""

    def restart() -> None:
        server.close()
        server.start()

    server.hook = restart
    server.start()
    with RawClient(server.address) as client:
        send(client)
        drain(client)
    with pytest.raises(RuntimeError, match="can't start the server again"):
        server.stop()
    assert not is_open(server)


def test_handle_accepted_may_close_its_server() -> None:
    """A server may close itself when a connection comes."""

    class Shy(Server):
        def handle_accepted(self, conn: Any, addr: Any) -> smtpd.SMTPChannel:
            self.close()
            return super().handle_accepted(conn, addr)

    with Shy(map={}) as server, RawClient(server.address) as client:
        drain(client)
        server.stop()
        assert not is_open(server)


@pytest.mark.parametrize("end", ["stop", "close"])
def test_serve_forever_has_ended_when_stop_returns(server: Server, end: str) -> None:
    """A server that another thread serves is closed when `stop` or `close` returns, and can be started at once."""
    for _ in range(50):
        with in_thread(server.serve_forever):
            wait_until_served(server)
            STEPS[end](server)
            assert not is_open(server)
            server.start()
            assert is_open(server)
            server.close()


# Errors.


def test_an_error_is_answered_and_raised_by_stop(server: Server) -> None:
    """What process_message raises is answered with 451, and `stop` raises the exception itself, once."""
    error = LookupError("no such mailbox")
    server.hook = failing(error)
    server.start()
    with RawClient(server.address) as client:
        assert send(client) == LOCAL_ERROR
        assert client.ask("NOOP") == "250 OK"
    with pytest.raises(LookupError) as caught:
        server.stop()
    assert caught.value is error
    server.stop()


def test_several_errors_are_raised_as_a_group(server: Server) -> None:
    """Several exceptions come in an ExceptionGroup, in order."""
    errors = [LookupError("one"), ValueError("two")]
    server.hook = failing(*errors)
    server.start()
    assert [mail(server), mail(server)] == [LOCAL_ERROR] * 2
    with pytest.raises(ExceptionGroup, match="several hooks of Server failed") as caught:
        server.stop()
    assert list(caught.value.exceptions) == errors


def test_close_raises_no_errors(server: Server) -> None:
    """`close` keeps the exceptions for `stop`."""
    server.hook = failing(LookupError("kept"))
    server.start()
    mail(server)
    server.close()
    with pytest.raises(LookupError, match="kept"):
        server.stop()


def test_with_raises_errors(server: Server) -> None:
    """A with-statement raises at its end what hooks have raised."""
    server.hook = failing(LookupError("at the end"))
    with pytest.raises(LookupError, match="at the end"), server:
        mail(server)


def test_what_the_body_raises_is_not_replaced(server: Server) -> None:
    """When the body of the with-statement raises, that is raised, with a note of what hooks have raised."""
    server.hook = failing(LookupError("the cause"))

    def body() -> None:
        with server:
            mail(server)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as caught:
        body()
    (note,) = caught.value.__notes__
    assert "LookupError('the cause')" in note
    assert not is_open(server)
    with contextlib.suppress(LookupError):
        server.stop()


def test_a_body_that_raises_without_errors_gets_no_note(server: Server) -> None:
    """When no hook has failed, nothing is noted."""
    with pytest.raises(ZeroDivisionError) as caught, server:
        raise ZeroDivisionError
    assert not hasattr(caught.value, "__notes__")


def test_a_result_that_is_no_reply_is_an_error(server: Server) -> None:
    """A result of process_message that is no reply is answered with 451, and `stop` raises ValueError."""
    server.hook = lambda: "no reply"
    server.start()
    assert mail(server) == LOCAL_ERROR
    with pytest.raises(ValueError, match="no SMTP reply"):
        server.stop()


def test_a_process_message_that_is_missing_is_an_error() -> None:
    """A server without a process_message of its own answers messages with 451."""
    server = smtpd.SMTPServer(("127.0.0.1", 0), None, map={})
    with pytest.raises(NotImplementedError), server, RawClient(server.socket.getsockname()) as client:
        assert send(client) == LOCAL_ERROR


def test_an_error_while_accepting_is_raised_by_stop() -> None:
    """What handle_accepted raises ends that connection, and `stop` raises it."""

    class Choosy(Server):
        def handle_accepted(self, conn: Any, addr: Any) -> smtpd.SMTPChannel:
            if not self.threads:
                self.threads.add(threading.current_thread())
                msg = "not you"
                raise PermissionError(msg)
            return super().handle_accepted(conn, addr)

    server = Choosy(map={}).start()
    with RawClient(server.address) as client:
        assert client.read_reply() == ""
    assert mail(server) == "250 OK"
    with pytest.raises(PermissionError, match="not you"):
        server.stop()


# Messages.


def test_a_reply_is_sent_as_the_answer(server: Server) -> None:
    """A reply that process_message returns is the answer to the message."""
    server.hook = lambda: "554 No"
    with server:
        assert mail(server) == "554 No"


@pytest.mark.parametrize(
    ("options", "data"),
    [
        pytest.param({}, b"Subject: hello\n\nworld", id="bytes"),
        pytest.param({"decode_data": True}, "Subject: hello\n\nworld", id="decode_data"),
        pytest.param({"enable_SMTPUTF8": True}, b"Subject: hello\n\nworld", id="SMTPUTF8"),
        pytest.param({"data_size_limit": 0}, b"Subject: hello\n\nworld", id="no limit"),
    ],
)
def test_what_process_message_is_given(options: dict[str, Any], data: bytes | str) -> None:
    """process_message gets the envelope, and the content with LF for line ends and without the last one."""
    with Server(map={}, **options) as server:
        assert mail(server) == "250 OK"
    assert server.received == [("a@example.org", ["b@example.org"], data)]


def test_content_that_cannot_be_decoded_is_refused() -> None:
    """With decode_data, content that is not UTF-8 is refused, and process_message is not called."""
    with Server(map={}, decode_data=True) as server, RawClient(server.address) as client:
        advance(client, *ENVELOPE)
        client.send(b"\xff\r\n.\r\n")
        assert client.read_reply() == "554 Error: the content is not UTF-8"
    assert server.received == []


class Taking(Server):
    """A server that keeps the options that it is given."""

    def __init__(self) -> None:
        super().__init__(map={})
        self.options: list[dict[str, list[str]]] = []


class TakingNone(Taking):
    """Takes none, as the classic module's first users did."""

    def process_message(self, peer: Any, mailfrom: str, rcpttos: list[str], data: Any) -> None:  # type: ignore[override]  # that is the point
        """Keep them."""
        self.options.append({})


class TakingOne(Taking):
    """Takes one of them by name."""

    def process_message(  # type: ignore[override]  # that is the point
        self, peer: Any, mailfrom: str, rcpttos: list[str], data: Any, rcpt_options: Any = None
    ) -> None:
        """Keep them."""
        self.options.append({"rcpt_options": rcpt_options})


class TakingAll(Taking):
    """Takes all."""

    def process_message(self, peer: Any, mailfrom: str, rcpttos: list[str], data: Any, **kwargs: Any) -> None:
        """Keep them."""
        self.options.append(kwargs)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        pytest.param(TakingNone, {}, id="none"),
        pytest.param(TakingOne, {"rcpt_options": []}, id="one"),
        pytest.param(TakingAll, {"mail_options": ["BODY=8BITMIME"], "rcpt_options": []}, id="all"),
    ],
)
def test_process_message_is_given_the_options_that_it_takes(kind: type[Taking], options: dict[str, list[str]]) -> None:
    """A process_message without **kwargs is called with those keyword arguments that it has."""
    with kind() as server, RawClient(server.address) as client:
        commands = ["EHLO client", "MAIL FROM:<a@example.org> body=8bitmime", *ENVELOPE[2:]]
        assert advance(client, *commands)[-1] == "354"
        client.send(CONTENT + b".\r\n")
        assert client.read_reply() == "250 OK"
    assert server.options == [options]


# smtpd.loop.


def test_loop_serves_all_servers_in_this_thread(classic: Callable[[], Server]) -> None:
    """`smtpd.loop()` serves all open servers in the calling thread until the last one is closed."""
    servers = [classic() for _ in range(3)]

    def use() -> None:
        for server in servers:
            assert mail(server) == "250 OK"
        for server in servers:
            assert is_open(server)
            server.close()

    with in_thread(use):
        smtpd.loop()
    assert [server.threads for server in servers] == [{threading.current_thread()}] * 3
    assert not any(is_open(server) for server in servers)


def test_loop_without_servers_returns() -> None:
    """`smtpd.loop()` returns at once when there is nothing to serve."""
    smtpd.loop()
    smtpd.loop(map={})


def test_a_server_that_is_made_in_a_hook_is_served(classic: Callable[[], Server]) -> None:
    """`smtpd.loop()` serves servers that come while it runs."""
    servers = [classic()]
    servers[0].hook = lambda: servers.append(classic())

    def use() -> None:
        mail(servers[0])
        mail(servers[1])
        for server in servers:
            server.close()

    with in_thread(use):
        smtpd.loop()
    assert [len(server.received) for server in servers] == [1, 1]


def test_servers_that_start_are_not_served_by_loop(classic: Callable[[], Server]) -> None:
    """`smtpd.loop()` leaves alone servers that have a thread of their own."""
    server = classic().start()
    smtpd.loop()
    assert mail(server) == "250 OK"
    assert threading.current_thread() not in server.threads


class Restarting(Server):
    """A server that another thread starts again in the moment in which `smtpd.loop` has let go of it."""

    restarts = 1

    def stopped(self) -> None:
        """Wait for the other thread."""
        if self.restarts:
            self.restarts -= 1
            with in_thread(self.start):
                pass


def test_who_closes_waits_for_no_other_end_than_that() -> None:
    """`close` returns when `smtpd.loop` has let go of the server, also if it is served again by then."""
    server = Restarting()
    with contextlib.closing(server), in_thread(smtpd.loop):
        assert is_open(server)
        with in_thread(server.close):  # it is joined at the end of the block
            pass
        assert is_open(server)


def test_recording_servers_are_not_served_by_loop() -> None:
    """`smtpd.loop()` leaves alone RecordingServers, whether they are started or not."""
    server = RecordingServer()
    with contextlib.closing(server):
        smtpd.loop()
        server.start()
        smtpd.loop()


def test_loop_counts(classic: Callable[[], Server]) -> None:
    """With `count`, `smtpd.loop` returns after so many times; the servers stay open and can be served on."""
    server = classic()
    with RawClient(server.address) as client:
        client.send(b"NOOP\r\n")
        smtpd.loop(count=1)
        assert client.read_reply()[:3] == "220"
        smtpd.loop(count=1)
        assert client.read_reply()[:3] == "250"
        smtpd.loop(timeout=0, count=10)
        assert server.socket.fileno() >= 0


def test_loop_waits_for_its_timeout(classic: Callable[[], Server]) -> None:
    """With `timeout`, each time lasts so long when nothing happens."""
    classic()
    start = time.monotonic()
    smtpd.loop(timeout=0.05, count=2)
    assert 0.1 <= time.monotonic() - start < DEADLINE


def test_loop_takes_a_map(classic: Callable[[], Server]) -> None:
    """With `map`, `smtpd.loop` serves the servers that were made with it, and no others."""
    servers: dict[int, smtpd.SMTPServer] = {}
    server, other = Server(map=servers), classic()
    assert list(servers.values()) == [server]

    def use() -> None:
        with RawClient(other.address) as unserved:
            assert mail(server) == "250 OK"
            server.close()
            other.start()
            assert unserved.read_reply()[:3] == "220"

    with in_thread(use):
        smtpd.loop(map=servers)
    assert servers == {}


@pytest.mark.parametrize("then", ["start", "with", "serve_forever"])
def test_a_server_can_change_from_loop_to_a_thread(classic: Callable[[], Server], then: str) -> None:
    """A server that `smtpd.loop` has served for a while can be started."""
    server = classic()
    smtpd.loop(timeout=0, count=1)
    STEPS[then](server)
    assert is_open(server) == (then == "start")


def test_loop_takes_no_server_that_was_closed_meanwhile(classic: Callable[[], Server]) -> None:
    """A server that another thread has closed just before its turn is not served, and keeps no loop open."""
    server = classic()
    server.close()
    smtpd._run_common_loop([server], timeout=0)  # noqa: SLF001 - the moment can't be had otherwise
    assert server.loop is None
    assert not is_open(server)


def test_loop_ends_with_the_last_server_in_every_moment(classic: Callable[[], Server]) -> None:
    """Servers may be closed by another thread at any time while `smtpd.loop` runs."""
    for _ in range(100):
        servers = [classic() for _ in range(3)]
        with in_thread(lambda servers=servers: [server.close() for server in servers]):  # type: ignore[misc]  # its default
            smtpd.loop()
        assert not any(server.socket.fileno() >= 0 for server in servers)


def _press_ctrl_c() -> None:
    signal.raise_signal(signal.SIGINT)


def test_ctrl_c_in_a_hook_ends_loop(classic: Callable[[], Server]) -> None:
    """A Ctrl-C that comes while a hook runs ends `smtpd.loop()`, too, and all of its servers."""
    servers = [classic() for _ in range(2)]
    servers[0].hook = _press_ctrl_c
    with RawClient(servers[1].address) as other:
        with in_thread(lambda: mail(servers[0])):
            smtpd.loop()
        drain(other)
    assert not any(is_open(server) for server in servers)


def test_ctrl_c_ends_serve_forever(server: Server) -> None:
    """Ctrl-C leaves `serve_forever` as KeyboardInterrupt, and the server can be stopped."""
    server.hook = _press_ctrl_c

    def send_and_stay() -> None:
        with RawClient(server.address) as client:
            send(client)
            drain(client)

    with in_thread(send_and_stay):
        with pytest.raises(KeyboardInterrupt):
            server.serve_forever()
        server.stop()
    assert not is_open(server)


SERVE = """
    from pytest_smtpd import smtpd

    class Server(smtpd.SMTPServer):
        def process_message(self, *args, **kwargs):
            {hook}

    servers = [Server(("127.0.0.1", 0), None) for _ in range(2)]
    for server in servers:
        print(server.socket.getsockname()[1], flush=True)
    smtpd.loop()
    print("over", len(smtpd.server.socket_map))
"""


@contextlib.contextmanager
def serving(hook: str) -> Iterator[tuple[subprocess.Popen[str], list[tuple[str, int]]]]:
    """Run `smtpd.loop()` in a process of its own, warnings as errors; give the process and the addresses."""
    command = [sys.executable, "-X", "dev", "-W", "error", "-c", textwrap.dedent(SERVE).format(hook=hook)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) as process:  # noqa: S603 - our own
        assert process.stdout is not None
        try:
            yield process, [("127.0.0.1", int(process.stdout.readline())) for _ in range(2)]
        finally:
            process.kill()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows sends no SIGINT to another process")
def test_ctrl_c_ends_loop() -> None:
    """Ctrl-C ends `smtpd.loop()`: open sessions are told so with 421, and the program goes on to its end."""
    with serving("pass") as (process, addresses), contextlib.ExitStack() as stack:
        clients = [stack.enter_context(RawClient(address)) for address in addresses]
        assert [advance(client, *ENVELOPE) for client in clients] == [["250", "250", "250", "354"]] * 2
        process.send_signal(signal.SIGINT)
        assert [client.read_reply() for client in clients] == [CLOSING] * 2
        assert [client.read_reply() for client in clients] == [""] * 2
        output, errors = process.communicate(timeout=60)
    assert (output, errors, process.returncode) == ("over 0\n", "", 0)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows sends no SIGINT to another process")
def test_ctrl_c_raises_what_hooks_have_raised() -> None:
    """After Ctrl-C `smtpd.loop()` raises what hooks have raised, and all servers are closed nevertheless."""
    with serving("raise LookupError('from the hook')") as (process, addresses), contextlib.ExitStack() as stack:
        clients = [stack.enter_context(RawClient(address)) for address in addresses]
        assert [send(client) for client in clients] == [LOCAL_ERROR] * 2
        process.send_signal(signal.SIGINT)
        assert [client.read_reply() for client in clients] == [CLOSING] * 2
        _, errors = process.communicate(timeout=60)
    assert "LookupError: from the hook" in errors
    assert "ResourceWarning" not in errors
    assert process.returncode == 1


def test_the_package_knows_the_module() -> None:
    """`from pytest_smtpd import smtpd` replaces `import smtpd`."""
    assert pytest_smtpd.smtpd is smtpd
    assert {"SMTPServer", "SMTPChannel", "DebuggingServer", "loop"} <= set(smtpd.__all__)
