"""Other plugins, the real ones: what they do to tests does not get in the way of the server, nor the other way round."""

from __future__ import annotations

import json
import socket
from importlib.metadata import entry_points

import pytest
from inner import run
from tools import missing


def use(name: str) -> list[str]:
    """Return the arguments that let in this plugin, which must be installed."""
    if not entry_points(group="pytest11", name=name):
        missing(f"there is no pytest plugin {name}")
    return ["-p", name]


#: Each sends a message, and finds no other.
TESTS = """
    @pytest.mark.parametrize("number", range(6))
    def test_mail(smtpd_server, number):
        assert not smtpd_server.messages
        send(smtpd_server, f"message {number}")
        assert subjects(smtpd_server) == [f"message {number}"]
"""


@pytest.mark.parametrize(
    "arguments", [["-n", "2"], ["-n", "2", "--dist", "loadscope"], ["-n", "3", "--dist", "worksteal"]]
)
def test_xdist(pytester: pytest.Pytester, arguments: list[str]) -> None:
    """pytest-xdist: each worker has a server of its own, on a port of its own, however tests are spread."""
    result = run(pytester, TESTS, *use("xdist"), *arguments, "-W", "error")
    result.assert_outcomes(passed=6)


def test_xdist_reports_failures_and_late_mail(pytester: pytest.Pytester) -> None:
    """pytest-xdist: what a worker says of failures and late mail comes through."""
    tests = """
        def test_begins(pooled):
            pooled.begin()

        def test_ends(pooled, smtpd_server):
            pooled.end()
            send(smtpd_server)
            assert 1 == 2
    """
    result = run(pytester, tests, *use("xdist"), "-n", "1", "-W", "default")
    result.assert_outcomes(passed=1, failed=1, warnings=1)
    result.stdout.fnmatch_lines(["*SMTP server smtp://*", "*LateMailWarning: late mail came in *::test_ends*"])


def test_xdist_and_a_fixed_port(pytester: pytest.Pytester) -> None:
    """pytest-xdist: a worker that does not get a fixed port, since another one has it, says why."""
    with socket.create_server(("127.0.0.1", 0)) as other_worker:
        port = other_worker.getsockname()[1]
        tests = "def test_mail(smtpd_server): pass\n"
        result = run(pytester, tests, *use("xdist"), "-n", "1", f"--smtpd-server-port={port}")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(
        [f"smtpd_server can't listen on 127.0.0.1:{port}: *; each worker of pytest-xdist starts one: let the port be 0"]
    )


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_randomly(pytester: pytest.Pytester, seed: int) -> None:
    """pytest-randomly: in whatever order they come, tests find the server as new."""
    tests = (
        TESTS
        + """
    @pytest.mark.smtpd_server(hostname="mx.example.org")
    def test_marked(smtpd_server):
        assert smtpd_server.settings.hostname == "mx.example.org"

    def test_unmarked(smtpd_server):
        assert smtpd_server.settings.hostname == "localhost"
    """
    )
    result = run(pytester, tests, *use("randomly"), f"--randomly-seed={seed}")
    result.assert_outcomes(passed=8)


def test_rerunfailures(pytester: pytest.Pytester) -> None:
    """pytest-rerunfailures: a test that runs again finds the server as new, its marker included."""
    tests = """
        runs = []

        @pytest.mark.smtpd_server(hostname="mx.example.org")
        def test_flaky(smtpd_server):
            runs.append(1)
            assert smtpd_server.settings.hostname == "mx.example.org"
            send(smtpd_server, f"run {len(runs)}")
            assert subjects(smtpd_server) == [f"run {len(runs)}"]
            assert len(smtpd_server.dialogues) == 1
            assert len(runs) == 3

        def test_next(smtpd_server):
            assert not smtpd_server.messages
    """
    result = run(pytester, tests, *use("rerunfailures"), "--reruns", "3")
    assert result.parseoutcomes() == {"passed": 2, "rerun": 2}


def test_rerunfailures_and_broken_hooks(pytester: pytest.Pytester) -> None:
    """pytest-rerunfailures: the exception of a hook fails the run that caused it, and not the next one."""
    tests = """
        runs = []

        def test_flaky(make_smtpd_server):
            runs.append(1)
            if len(runs) == 1:
                send_to_broken(make_smtpd_server(Broken))
    """
    result = run(pytester, tests, *use("rerunfailures"), "--reruns", "1")
    assert result.parseoutcomes() == {"passed": 1, "rerun": 1}


#: Sends and waits in one event loop.
ASYNC = """
    import aiosmtplib

    async def deliver(server, subject):
        await aiosmtplib.send(
            f"Subject: {subject}", sender="ada@example.org", recipients=["bob@example.org"],
            hostname=server.host, port=server.port,
        )
"""


@pytest.mark.parametrize("mode", ["auto", "strict"])
def test_asyncio(pytester: pytest.Pytester, mode: str) -> None:
    """pytest-asyncio: coroutines and asynchronous fixtures send, and wait without blocking their event loop."""
    tests = (
        ASYNC
        + """
    import asyncio
    import pytest_asyncio

    @pytest_asyncio.fixture
    async def welcome(smtpd_server):
        await deliver(smtpd_server, "welcome")

    @pytest.mark.asyncio
    @pytest.mark.parametrize("number", [1, 2])
    async def test_mail(smtpd_server, welcome, number):
        task = asyncio.create_task(deliver(smtpd_server, f"message {number}"))
        [message] = await smtpd_server.wait_for_async(subject=f"message {number}")
        await task
        assert subjects(smtpd_server) == ["welcome", message.subject]

    @pytest.mark.asyncio
    async def test_failure(smtpd_server):
        await deliver(smtpd_server, "hello")
        await smtpd_server.wait_for_async(subject="other", timeout=0.01)
    """
    )
    loop_scope = "asyncio_default_fixture_loop_scope=function"
    result = run(pytester, tests, *use("asyncio"), f"--asyncio-mode={mode}", "-o", loop_scope)
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(["*SMTP server smtp://*", "*C: MAIL FROM*"])


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_anyio(pytester: pytest.Pytester, backend: str) -> None:
    """anyio: tests wait on both of its backends."""
    tests = f"""
        import anyio, anyio.to_thread

        @pytest.fixture
        def anyio_backend():
            return "{backend}"

        @pytest.mark.anyio
        @pytest.mark.parametrize("number", [1, 2])
        async def test_mail(smtpd_server, number):
            async with anyio.create_task_group() as group:
                group.start_soon(anyio.to_thread.run_sync, send, smtpd_server, f"message {{number}}")
                [message] = await smtpd_server.wait_for_async()
            assert subjects(smtpd_server) == [f"message {{number}}"]

        @pytest.mark.anyio
        async def test_failure(smtpd_server):
            await smtpd_server.wait_for_async(timeout=0.01)
    """
    result = run(pytester, tests, *use("anyio"), subprocess=True)
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(["*SMTP server smtp://*", "No client has connected to *"])


def test_run_parallel(pytester: pytest.Pytester) -> None:
    """pytest-run-parallel: the threads in which a test runs share the mailbox, and find their messages by criteria."""
    tests = """
        @pytest.mark.smtpd_server(hostname="mx.example.org")
        def test_mail(smtpd_server, thread_index):
            send(smtpd_server, f"thread {thread_index}")
            assert smtpd_server.assert_received(subject=f"thread {thread_index}").helo

        def test_next(smtpd_server, num_parallel_threads):
            assert num_parallel_threads == 4
            assert not smtpd_server.messages

        def test_made(make_smtpd_server, thread_index):
            server = make_smtpd_server()
            send(server, f"thread {thread_index}")
            assert subjects(server) == [f"thread {thread_index}"]
    """
    result = run(pytester, tests, *use("run-parallel"), "--parallel-threads=4", subprocess=True)
    result.assert_outcomes(passed=3)
    result.stdout.no_fnmatch_line("*thread-unsafe*")


def test_html(pytester: pytest.Pytester) -> None:
    """pytest-html: the report has the section of the failed test, and nothing of those that passed."""
    tests = """
        def test_fails(smtpd_server):
            send(smtpd_server, "hello")
            assert 1 == 2

        def test_passes(smtpd_server):
            send(smtpd_server)
    """
    result = run(
        pytester, tests, *use("html"), *use("html_fixtures"), *use("metadata"), "--html=report.html", subprocess=True
    )
    result.assert_outcomes(failed=1, passed=1)
    text = pytester.path.joinpath("report.html").read_text("utf-8")
    assert text.count("SMTP server smtp://") == 1
    assert text.count("S: 220 localhost") == 1


def test_hypothesis(pytester: pytest.Pytester) -> None:
    """Hypothesis: the examples of a test share the mailbox, which `clear()` empties for each."""
    tests = """
        from hypothesis import HealthCheck, given, settings, strategies

        @settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
        @given(strategies.integers(0, 9))
        def test_mail(smtpd_server, number):
            smtpd_server.clear()
            send(smtpd_server, str(number))
            assert smtpd_server.assert_received().subject == str(number)
    """
    run(pytester, tests, *use("hypothesispytest"), subprocess=True).assert_outcomes(passed=1)


def test_the_plugins_are_let_in_here_only(pytester: pytest.Pytester) -> None:
    """Other runs in these tests go without the plugins that change how tests run."""
    pytester.makeconftest("""
        import json, pathlib

        def pytest_configure(config):
            names = [name for name, plugin in config.pluginmanager.list_name_plugin() if plugin is not None]
            pathlib.Path("names.json").write_text(json.dumps(names))
    """)
    run(pytester, "")
    names = set(json.loads(pytester.path.joinpath("names.json").read_text("utf-8")))
    assert "pytest_smtpd" in names
    assert not names & {"asyncio", "html", "metadata", "randomly", "rerunfailures", "run-parallel"}
