"""Options: the marker, the command line, the fixture and the ini-file; which wins, and what is said of wrong ones."""

from __future__ import annotations

import json
import socket

import pytest
from inner import run

#: A test that prints what the server calls itself, and others that do the same.
PRINTS = """
    def test_{0}(smtpd_server):
        with smtplib.SMTP(*smtpd_server.address) as client:
            name = client.ehlo()[1].decode().splitlines()[0]
        assert name == "{1}"
"""


def make_conftest(pytester: pytest.Pytester, options: object) -> None:
    """Override the fixture with these options."""
    pytester.makeconftest(f"""
        import pytest

        @pytest.fixture(scope="session")
        def smtpd_server_options():
            return {options!r}
    """)


# Where they come from.


def test_the_fixture(pytester: pytest.Pytester) -> None:
    """A fixture `smtpd_server_options` of the user's gives the options of `smtpd_server`."""
    make_conftest(pytester, {"hostname": "mx.example.org", "hide": ["SIZE"]})
    tests = """
        def test_options(smtpd_server):
            with smtplib.SMTP(*smtpd_server.address) as client:
                assert client.ehlo()[1].startswith(b"mx.example.org\\n")
                assert not client.has_extn("SIZE")
    """
    run(pytester, tests).assert_outcomes(passed=1)


def test_the_marker_holds_for_one_test(pytester: pytest.Pytester) -> None:
    """The marker changes options for its test, also for the fixtures of it, on the same port; then they are as before."""
    tests = """
        addresses = set()

        @pytest.fixture
        def name(smtpd_server):
            addresses.add(smtpd_server.address)
            with smtplib.SMTP(*smtpd_server.address) as client:
                return client.ehlo()[1].decode().splitlines()[0]

        @pytest.mark.smtpd_server(hostname="first.example")
        def test_first(name):
            assert name == "first.example"

        def test_second(name):
            assert name == "localhost"

        @pytest.mark.smtpd_server(require_auth=True, users={"ada": "secret"})
        def test_third(smtpd_server):
            with pytest.raises(smtplib.SMTPSenderRefused):
                send(smtpd_server)

        def test_fourth(smtpd_server, name):
            send(smtpd_server)
            assert len(addresses) == 1
    """
    run(pytester, tests).assert_outcomes(passed=4)


def test_a_block_around_several_tests_holds_for_all(pytester: pytest.Pytester) -> None:
    """Options that a fixture of a class has changed hold for all of its tests, and for none behind it."""
    tests = """
        @pytest.fixture(scope="class")
        def named(smtpd_server):
            with smtpd_server.options(hostname="class.example"):
                yield

        @pytest.mark.usefixtures("named")
        class TestClass:
            def test_first(self, smtpd_server):
                assert smtpd_server.settings.hostname == "class.example"

            @pytest.mark.smtpd_server(max_recipients=3)
            def test_second(self, smtpd_server):
                assert (smtpd_server.settings.hostname, smtpd_server.settings.max_recipients) == ("class.example", 3)

        def test_behind(smtpd_server):
            assert smtpd_server.settings.hostname == "localhost"
    """
    run(pytester, tests).assert_outcomes(passed=3)


def test_the_nearest_marker_wins(pytester: pytest.Pytester) -> None:
    """Markers of the module, the class and the function add up; of the same option, the nearest one wins."""
    tests = """
        pytestmark = pytest.mark.smtpd_server(hostname="module.example", wait_timeout=1)

        @pytest.mark.smtpd_server(hostname="class.example", max_recipients=3)
        class TestClass:
            @pytest.mark.smtpd_server(hostname="function.example")
            def test_function(self, smtpd_server):
                assert smtpd_server.settings.hostname == "function.example"
                assert (smtpd_server.settings.max_recipients, smtpd_server.wait_timeout) == (3, 1)

            def test_class(self, smtpd_server):
                assert smtpd_server.settings.hostname == "class.example"

        def test_module(smtpd_server):
            assert smtpd_server.settings.hostname == "module.example"
    """
    run(pytester, tests).assert_outcomes(passed=3)


def test_the_marker_ends_open_sessions(pytester: pytest.Pytester) -> None:
    """Where a marker changes options, sessions that are still open are ended with 421: they began with others."""
    tests = """
        def test_opens(pooled):
            pooled.ask("NOOP")

        @pytest.mark.smtpd_server(hostname="mx.example.org")
        def test_marked(pooled):
            pooled.read("421")
            assert pooled.replies.read() == b""
    """
    run(pytester, tests).assert_outcomes(passed=2)


#: Every option of the ini-file, as ini-files have it, with its value.
INI = {
    "host": ("127.0.0.1", None),
    "port": ("0", None),
    "wait_timeout": ("2.5", 2.5),
    "hostname": ("mx.example.org", "mx.example.org"),
    "protocol": ("lmtp", "lmtp"),
    "hide": ("SIZE DSN", ["SIZE", "DSN"]),
    "hide_after_tls": ("SIZE", ["SIZE"]),
    "advertise": ("XFOO bar", ["XFOO bar"]),
    "advertise_after_tls": ("XBAZ", ["XBAZ"]),
    "strict": ("yes", True),
    "tls": ("starttls", "starttls"),
    "require_tls": ("true", True),
    "certificate": ("wrong-host", "wrong-host"),
    "maximum_tls_version": ("TLSv1.2", "TLSv1.2"),
    "client_certificates": ("optional", "optional"),
    "require_auth": ("on", True),
    "auth_mechanisms": ("PLAIN XOAUTH2", ["PLAIN", "XOAUTH2"]),
    "auth_without_tls": ("1", True),
    "encryption_required": ("538 5.7.11 No", "538 5.7.11 No"),
    "data_size_limit": ("1000000", 1000000),
    "command_size_limit": ("600", 600),
    "line_size_limit": ("2000", 2000),
    "max_recipients": ("5", 5),
    "max_messages": ("6", 6),
    "max_commands": ("7", 7),
    "max_errors": ("8", 8),
    "max_connections": ("9", 9),
    "timeout": ("10", 10.0),
    "proxy_protocol": ("no", False),
    "allow_unused_rules": ("on", True),
}
VALUES = {name: value for name, (_, value) in INI.items() if value is not None}
#: What these values come to.
CHECKS = f"""
    def test_options(smtpd_server):
        from pytest_smtpd.testing.options import configure, read_options
        assert smtpd_server._configuration == configure(read_options({VALUES!r}))
        assert smtpd_server.settings.ehlo_replies == smtpd_server._configuration.settings.ehlo_replies
        assert (smtpd_server.max_connections, smtpd_server.timeout, smtpd_server.wait_timeout) == (9, 10.0, 2.5)
        assert smtpd_server.ssl_context is not None
"""


def test_the_ini_file(pytester: pytest.Pytester) -> None:
    """All options that text can express can stand in an ini-file."""
    lines = [f"smtpd_server_{name} = {text}" for name, (text, _) in INI.items()]
    pytester.makeini("\n".join(["[pytest]", *lines]))
    run(pytester, CHECKS, "--strict-config").assert_outcomes(passed=1)


def test_the_command_line_overrides_the_ini_file(pytester: pytest.Pytester) -> None:
    """Where there is no ini-file, `-o` gives its options."""
    arguments = [argument for name, (text, _) in INI.items() for argument in ("-o", f"smtpd_server_{name}={text}")]
    run(pytester, CHECKS, *arguments, "-c", "/dev/null").assert_outcomes(passed=1)


@pytest.mark.parametrize(
    ("file", "table"),
    [
        ("pyproject.toml", "[tool.pytest.ini_options]"),
        pytest.param(
            "pyproject.toml",
            "[tool.pytest]",
            marks=pytest.mark.skipif(pytest.version_tuple < (9, 0), reason="native TOML came with pytest 9"),
        ),
    ],
)
def test_toml(pytester: pytest.Pytester, file: str, table: str) -> None:
    """In TOML the options have numbers, truth values and lists, be it the native table of pytest 9 or the old one."""
    lines = [f"smtpd_server_{name} = {json.dumps(value)}" for name, value in VALUES.items()]
    pytester.makefile(".toml", **{file.removesuffix(".toml"): "\n".join([table, *lines])})
    run(pytester, CHECKS, "--strict-config").assert_outcomes(passed=1)


def test_every_option_that_text_can_express_is_one_of_the_ini_file() -> None:
    """The ini-file has all options of RecordingServer but those that are objects."""
    from pytest_smtpd.plugin import INI_OPTIONS
    from pytest_smtpd.testing.options import ADDRESS_KINDS, KINDS

    assert INI_OPTIONS.keys() == (KINDS | ADDRESS_KINDS).keys() - {"users", "ssl_context", "directory"}
    assert INI_OPTIONS.keys() == INI.keys()


def test_host_and_port_on_the_command_line(pytester: pytest.Pytester) -> None:
    """`--smtpd-server-host` and `--smtpd-server-port` say where the server listens, whatever else says so."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    make_conftest(pytester, {"host": "127.0.0.9", "port": 1})
    tests = f"""
        def test_address(smtpd_server):
            assert smtpd_server.address == ("127.0.0.1", {port})
            send(smtpd_server)
    """
    run(pytester, tests, "--smtpd-server-host=127.0.0.1", f"--smtpd-server-port={port}").assert_outcomes(passed=1)


@pytest.mark.parametrize("sources", [["ini"], ["ini", "fixture"], ["ini", "fixture", "marker"]])
def test_precedence(pytester: pytest.Pytester, sources: list[str]) -> None:
    """The marker wins over `smtpd_server_options`, and that over the ini-file; unmentioned options stay."""
    pytester.makeini("[pytest]\nsmtpd_server_hostname = ini.example\nsmtpd_server_max_recipients = 7\n")
    if "fixture" in sources:
        make_conftest(pytester, {"hostname": "fixture.example"})
    mark = '@pytest.mark.smtpd_server(hostname="marker.example")' if "marker" in sources else ""
    tests = f"""
        {mark}
        def test_options(smtpd_server):
            assert smtpd_server.settings.hostname == "{sources[-1]}.example"
            assert smtpd_server.settings.max_recipients == 7
    """
    run(pytester, tests).assert_outcomes(passed=1)


def test_the_timeout_of_waiting_holds_for_all_servers(pytester: pytest.Pytester) -> None:
    """`smtpd_server_wait_timeout` is for how long waiting takes, also of the servers that `make_smtpd_server` makes."""
    pytester.makeini("[pytest]\nsmtpd_server_wait_timeout = 0.01\n")
    tests = """
        class Subclass(RecordingServer):
            pass

        class Other(RecordingServer):
            def __init__(self):
                super().__init__(wait_timeout=0.02)

        def test_waiting(smtpd_server, make_smtpd_server):
            servers = [smtpd_server, make_smtpd_server(), make_smtpd_server(Subclass, hostname="x"),
                       make_smtpd_server(wait_timeout=0.03), make_smtpd_server(Other)]
            assert [server.wait_timeout for server in servers] == [0.01, 0.01, 0.01, 0.03, 0.02]
            with pytest.raises(AssertionError, match="within 0.01 s"):
                smtpd_server.wait_for()
    """
    run(pytester, tests).assert_outcomes(passed=1)


# What is wrong is said where it was written.


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"hide": "NONSENSE"}, "hide: no extension is called NONSENSE*"),
        ({"hostnam": "x"}, "there is no option 'hostnam': did you mean hostname?"),
        ({"timeout": "5"}, "timeout is a number of seconds, not '5'"),
        ({"users": "ada"}, "users is a dict of passwords by name, or a function *, not 'ada'"),
        (None, "options are a dict, not None: is a return missing?"),
        (["strict"], "options are a dict, not [[]'strict']"),
    ],
    ids=["value", "name", "type", "users", "nothing", "no dict"],
)
def test_wrong_options_of_the_fixture(pytester: pytest.Pytester, options: object, error: str) -> None:
    """What `smtpd_server_options` returns and is no option is an error of each test that asks for the server."""
    make_conftest(pytester, options)
    result = run(
        pytester, "def test_one(smtpd_server): pass\ndef test_two(smtpd_server): pass\ndef test_three(): pass\n"
    )
    result.assert_outcomes(errors=2, passed=1)
    result.stdout.fnmatch_lines([f"the fixture smtpd_server_options: {error}"])


@pytest.mark.parametrize(
    ("option", "error"),
    [
        ("timeout=soon", "*smtpd_server_timeout: *soon*"),
        ("data_size_limit=1 MB", "*smtpd_server_data_size_limit: *1 MB*"),
        ("strict=maybe", "*smtpd_server_strict: *maybe*"),
        ("tls=ssl", "*or -o: smtpd_server_[*]: tls is 'starttls', 'implicit' or None, not 'ssl'"),
        ("max_errors=-1", "*or -o: smtpd_server_[*]: max_errors *-1*"),
    ],
)
def test_wrong_values_of_the_ini_file(pytester: pytest.Pytester, option: str, error: str) -> None:
    """A wrong value in the ini-file is an error of the tests that ask for the server, and names file and option."""
    ini = pytester.makeini(f"[pytest]\nsmtpd_server_{option}\n")
    result = run(pytester, "def test_server(smtpd_server): pass\ndef test_none(): pass\n")
    result.assert_outcomes(errors=1, passed=1)
    result.stdout.fnmatch_lines([f"{ini}, {error.removeprefix('*')}"])
    result.stdout.no_fnmatch_line("*plugin.py*")


@pytest.mark.skipif(pytest.version_tuple < (9, 0), reason="native TOML came with pytest 9")
def test_wrong_types_in_native_toml(pytester: pytest.Pytester) -> None:
    """A value of another type in pytest's own TOML table is an error that names file and option."""
    toml = pytester.makefile(".toml", pytest='[pytest]\nsmtpd_server_timeout = "soon"\n')
    result = run(pytester, "def test_server(smtpd_server): pass\n")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines([f"{toml}, smtpd_server_timeout: *'soon'*"])


def test_wrong_values_for_made_servers(pytester: pytest.Pytester) -> None:
    """A wrong default in the ini-file is told when `make_smtpd_server` is first asked for."""
    run(
        pytester, "def test_server(make_smtpd_server): pass\n", "-o", "smtpd_server_wait_timeout=x"
    ).stdout.fnmatch_lines(["*smtpd_server_wait_timeout: *"])


def test_wrong_names_in_the_ini_file(pytester: pytest.Pytester) -> None:
    """Pytest itself tells of a name in the ini-file that is no option: a warning, with --strict-config an error."""
    pytester.makeini("[pytest]\nsmtpd_server_timout = 3\n")
    tests = "def test_server(smtpd_server): pass\n"
    result = run(pytester, tests, "-W", "default")
    result.assert_outcomes(passed=1, warnings=1)
    result.stdout.fnmatch_lines(["*Unknown config option: smtpd_server_timout*"])
    assert run(pytester, tests, "--strict-config").ret == pytest.ExitCode.USAGE_ERROR


@pytest.mark.parametrize(
    ("marker", "error"),
    [
        ("hostnam='x'", "there is no option 'hostnam': did you mean hostname?"),
        ("timeout='5'", "timeout is a number of seconds, not '5'"),
        ("auth_mechanisms=['SCRAM-SHA-256']", "auth_mechanisms: SCRAM-SHA-256 works only with users=*"),
        ("port=25", "port can't change, the server is the same for the session; make_smtpd_server makes *"),
        ("{'hostname': 'x'}", "options go by name, not ({'hostname': 'x'},)"),
    ],
    ids=["name", "type", "combination", "port", "positional"],
)
@pytest.mark.parametrize("before", [True, False], ids=["running", "started"])
def test_wrong_markers_fail_their_test_only(pytester: pytest.Pytester, marker: str, error: str, before: bool) -> None:  # noqa: FBT001 - a parameter
    """A marker that is wrong is an error at the set-up of its test, and of no other, also if it has the server started."""
    tests = f"""
        {"def test_before(smtpd_server): pass" if before else ""}

        @pytest.mark.smtpd_server({marker})
        def test_marked(smtpd_server):
            pass

        def test_after(smtpd_server):
            send(smtpd_server)
    """
    result = run(pytester, tests)
    result.assert_outcomes(passed=1 + before, errors=1)
    result.stdout.fnmatch_lines(["*ERROR at setup of test_marked*", f"@pytest.mark.smtpd_server: {error}"])


def test_a_wrong_marker_is_told_even_if_nothing_is_marked_by_it(pytester: pytest.Pytester) -> None:
    """A marker on a test that asks for no server is looked at, too."""
    tests = """
        @pytest.mark.smtpd_server(hostnam="x")
        def test_marked():
            pass

        @pytest.mark.smtpd_server(hostname="x")
        def test_right():
            pass
    """
    run(pytester, tests).assert_outcomes(passed=1, errors=1)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ("hostnam='x'", "there is no option 'hostnam': did you mean hostname?"),
        ("'strict'", "options go by name, not ('strict',)"),
        ("{'strict': True}, 25", "options go by name, not ({'strict': True}, 25)"),
        ("make_smtpd_server()", "options go by name, not (<RecordingServer on *>,)"),
        ("smtpd.PureProxy", "make_smtpd_server takes subclasses of RecordingServer, and PureProxy is none"),
    ],
    ids=["name", "positional", "dict", "server", "class"],
)
def test_wrong_options_of_made_servers(pytester: pytest.Pytester, arguments: str, error: str) -> None:
    """`make_smtpd_server` raises at the line of the test where the wrong option, or the wrong class, stands."""
    tests = f"""
        from pytest_smtpd import smtpd

        def test_server(make_smtpd_server):
            make_smtpd_server({arguments})
    """
    result = run(pytester, tests)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines([f">*make_smtpd_server({arguments})", f"E *TypeError: {error}"])


def test_a_port_in_use(pytester: pytest.Pytester) -> None:
    """An address that can't be had is an error that names it."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = run(pytester, "def test_server(smtpd_server): pass\n", f"--smtpd-server-port={port}")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines([f"smtpd_server can't listen on 127.0.0.1:{port}: *Address already in use*"])


@pytest.mark.parametrize("arguments", [["--smtpd-server-port=70000"], ["-o", "smtpd_server_host=::nowhere"]])
def test_addresses_that_are_none(pytester: pytest.Pytester, arguments: list[str]) -> None:
    """A port or host that there can't be is such an error, too."""
    result = run(pytester, "def test_server(smtpd_server): pass\n", *arguments)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["smtpd_server can't listen on *: *"])


def test_the_port_on_the_command_line_is_a_number(pytester: pytest.Pytester) -> None:
    """Text instead of a port is an error of the command line."""
    result = run(pytester, "", "--smtpd-server-port=smtp")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*argument --smtpd-server-port: invalid int value: 'smtp'"])


# What pytest says of them.


def test_help(pytester: pytest.Pytester) -> None:
    """`pytest --help` has the options of the command line, and those of the ini-file with their defaults."""
    result = pytester.runpytest_inprocess("--help")
    result.stdout.fnmatch_lines(
        [
            "SMTP server (pytest-smtpd-server):",
            "  --smtpd-server-host=HOST*",
            "  --smtpd-server-port=PORT*",
            "  smtpd_server_wait_timeout *",
            "*How many seconds wait_for*",
        ]
    )


def test_markers(pytester: pytest.Pytester) -> None:
    """`pytest --markers` has the marker, so that `--strict-markers` takes it."""
    pytester.runpytest_inprocess("--markers").stdout.fnmatch_lines(
        ["@pytest.mark.smtpd_server([*][*]options): options of *"]
    )
