"""Options: their names and values, checked, and changed while a server runs."""

from __future__ import annotations

import re
import smtplib
import ssl
from collections import UserDict
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import pytest
from support import RawClient

from pytest_smtpd import RecordingServer
from pytest_smtpd.plugin import INI_OPTIONS
from pytest_smtpd.testing.keywords import Options
from pytest_smtpd.testing.options import ADDRESS_KINDS, KINDS, Configuration, check_options, configure, parse_option
from pytest_smtpd.testing.security import Security

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def server() -> Iterator[RecordingServer]:
    """Return a running server."""
    with RecordingServer() as server:
        yield server


def keywords(server: RecordingServer) -> set[str]:
    """Return the keywords that a new client is offered."""
    with smtplib.SMTP(*server.address) as client:
        client.ehlo()
        return {keyword.upper() for keyword in client.esmtp_features}


# The table.


def test_all_tables_have_the_same_options() -> None:
    """What type checkers know, what is configured, what is checked and what the ini-file may say are the same names."""
    configured = set(Security.__annotations__) | set(Configuration.__annotations__) - {"settings"}
    assert set(Options.__annotations__) == set(KINDS) == configured
    # Functions and objects are no text.
    assert set(INI_OPTIONS) == {*KINDS, *ADDRESS_KINDS} - {"users", "directory", "ssl_context"}


def test_defaults_are_possible_values() -> None:
    """Each default passes the check of its own option."""
    defaults = {name: getattr(Configuration, name) for name in KINDS}
    assert configure(defaults) == configure({}) == Configuration()


VALUES: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"data_size_limit": "1MB"}, TypeError, "data_size_limit is a number of octets, not '1MB'"),
    ({"data_size_limit": 1e6}, TypeError, "data_size_limit is a number of octets, not 1000000.0"),
    ({"data_size_limit": -1}, ValueError, "data_size_limit is 0 (for no limit) or more, not -1"),
    ({"max_errors": True}, TypeError, "max_errors is a whole number, not True"),
    ({"max_errors": None}, TypeError, "max_errors is a whole number, not None"),
    ({"timeout": "1"}, TypeError, "timeout is a number of seconds, not '1'"),
    ({"timeout": float("nan")}, ValueError, "timeout is 0 (for no limit) or more, not nan"),
    ({"wait_timeout": -1}, ValueError, "wait_timeout is 0 (for no limit) or more, not -1"),
    ({"max_connections": -1}, ValueError, "max_connections is 0 (for no limit) or more, not -1"),
    ({"directory": ["ada"]}, TypeError, "directory is a dict of addresses, or lists of them, by name, not ['ada']"),
    ({"directory": {"ada": 5}}, TypeError, "directory is a dict of addresses, or lists of them, by name, not "),
    ({"directory": {5: "ada"}}, TypeError, "directory is a dict of addresses, or lists of them, by name, not "),
    ({"hide": 5}, TypeError, "hide is a list of strings, not 5"),
    ({"hide": [5]}, TypeError, "hide is a list of strings, not [5]"),
    ({"hide": b"SIZE"}, TypeError, "hide is a list of strings, not b'SIZE'"),
    ({"hide": iter(["SIZE"])}, TypeError, "hide is a list of strings, not <list_iterator"),
    ({"hide": None}, TypeError, "hide is a list of strings, not None"),
    ({"hide": ["SIZES"]}, ValueError, "hide: no extension is called SIZES; there are "),
    ({"auth_mechanisms": ["PLAN"]}, ValueError, "auth_mechanisms: there is no PLAN; there are "),
    ({"tls": True}, TypeError, "tls is 'starttls' or 'implicit', not True"),
    ({"tls": "ssl"}, ValueError, "tls is 'starttls', 'implicit' or None, not 'ssl'"),
    ({"client_certificates": True}, TypeError, "client_certificates is 'optional' or 'required', not True"),
    ({"ssl_context": ssl}, TypeError, "ssl_context is an ssl.SSLContext, not <module 'ssl'"),
    ({"strict": 1}, TypeError, "strict is True or False, not 1"),
    ({"strict": None}, TypeError, "strict is True or False, not None"),
    ({"users": ["ada"]}, TypeError, "users is a dict of passwords by name, or a function that returns the password"),
    ({"users": {"ada": b"secret"}}, ValueError, "users: passwords are strings"),
    ({"users": {b"ada": "secret"}}, ValueError, "users: passwords are strings"),
    ({"encryption_required": 538}, TypeError, "encryption_required is a reply such as '538 5.7.11 No', not 538"),
    ({"encryption_required": "No"}, ValueError, "encryption_required is a reply such as '538 5.7.11 No', not 'No'"),
    ({"encryption_required": "250 OK"}, ValueError, "encryption_required is a reply such as '538 5.7.11 No', not "),
    ({"advertise": ["XFOO  bar"]}, ValueError, "advertise: a line of the EHLO reply is a keyword, and parameters"),
    ({"advertise": [""]}, ValueError, "advertise: a line of the EHLO reply is a keyword, and parameters"),
    ({"advertise": ["X\r\nY"]}, ValueError, "advertise: a line of the EHLO reply is a keyword, and parameters"),
    ({"hide_after_tls": ["SIZ"]}, ValueError, "hide: no extension is called SIZ"),
    ({"allow_unused_rules": 1}, TypeError, "allow_unused_rules is True or False, not 1"),
    ({"hostname": "a b"}, ValueError, "hostname is a domain or an address literal, not 'a b'"),
    ({"protocol": "esmtp"}, ValueError, "protocol is 'smtp' or 'lmtp', not 'esmtp'"),
    ({"require_aut": True}, TypeError, "there is no option 'require_aut': did you mean require_auth?"),
    ({"zzz": True}, TypeError, "there is no option 'zzz': there are "),
]


@pytest.mark.parametrize(
    ("options", "error", "text"), VALUES, ids=[re.sub(" at 0x[^>]*", "", str(options)) for options, _, _ in VALUES]
)
def test_mistakes_are_errors_that_name_the_option(
    server: RecordingServer, options: dict[str, Any], error: type[Exception], text: str
) -> None:
    """A wrong name or value is an error wherever options are given, and a server that runs stays as it was."""
    before = server.settings, server.timeout
    server.messages.clear("a test")

    def change() -> None:
        with server.options(**options):
            pass

    for use in (lambda: RecordingServer(**options), change, lambda: server.reset("another", **options)):
        with pytest.raises(error, match=f"^{re.escape(text)}"):
            use()
    with pytest.raises(error, match=f"^{re.escape(text)}"):
        check_options({"host": "127.0.0.1", **options})
    assert (server.settings, server.timeout) == before
    assert server.messages.generation.owner == "another"
    server.stop()


@pytest.mark.parametrize("options", [{"host": None}, {"host": 5}, {"port": "25"}, {"port": None}, {"port": True}])
def test_an_address_of_a_wrong_type_is_an_error(options: dict[str, Any]) -> None:
    """`host` and `port` of a wrong type are errors that name them, also where options are only checked."""
    for use in (lambda: RecordingServer(**options), lambda: check_options(options)):
        with pytest.raises(TypeError, match=r"^(host is a string|port is a whole number), not "):
            use()


def test_options_are_a_mapping() -> None:
    """What is no mapping is an error; any kind of mapping will do."""
    with pytest.raises(TypeError, match=r"^options are a dict, not \['tls'\]$"):
        check_options(["tls"])
    check_options(UserDict(tls="starttls", users=MappingProxyType({"ada": "secret"})))


def test_type_checkers_know_the_options() -> None:
    """A wrong name or type is an error for mypy: if it were none, mypy would find a comment here that is not needed."""
    with pytest.raises(TypeError):
        RecordingServer(strict=1)  # type: ignore[arg-type] # the point of the test
    with pytest.raises(TypeError):
        RecordingServer(require_aut=True)  # type: ignore[call-arg] # the point of the test


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("port", "25", 25),
        ("timeout", "0.5", 0.5),
        ("max_errors", "0", 0),
        ("hostname", "mx.example.org", "mx.example.org"),
    ],
)
def test_options_are_read_from_text(name: str, text: str, value: object) -> None:
    """A text is read as the type that the option has."""
    assert parse_option(name, text) == value


@pytest.mark.parametrize("name", ["port", "timeout", "data_size_limit"])
def test_a_text_that_is_none_is_an_error(name: str) -> None:
    """A text that can't be read is an error that names the option."""
    with pytest.raises(ValueError, match=f"^{name} is a .*, not 'x'$"):
        parse_option(name, "x")


# What the caller does with values afterwards.


def test_what_was_given_may_change(server: RecordingServer) -> None:
    """Lists and dicts are copied: what becomes of them does not matter to a server, not even when options change."""
    hide, directory = ["SIZE"], {"staff": ["ada@example.org"]}
    mechanisms = ["PLAIN"]
    with RecordingServer(hide=hide, directory=directory, auth_mechanisms=mechanisms) as other:
        hide.append("DSN")
        directory["staff"].append("bob@example.org")
        mechanisms.append("nonsense")
        with other.options(strict=True):
            assert "SIZE" not in keywords(other)
            assert "DSN" in keywords(other)
            assert other.settings.directory == {"staff": ("ada@example.org",)}
    with server.options(hide="SIZE"):  # one string is a list of one, not of letters
        assert "SIZE" not in keywords(server)


def test_users_may_come_and_go(server: RecordingServer) -> None:
    """The dict of users is looked into at each login, also one that was equal to another one when it was given."""
    first: dict[str, str] = {}
    second: dict[str, str] = {}
    with server.options(users=first), server.options(users=second):
        second["ada"] = "secret"
        with smtplib.SMTP(*server.address) as client:
            assert client.login("ada", "secret")[0] == 235


# Changing.


def test_options_hold_inside_a_block(server: RecordingServer) -> None:
    """`options` changes them for a block and back, also when blocks nest and when one ends with an exception."""
    assert {"SIZE", "DSN"} <= keywords(server)
    with pytest.raises(ZeroDivisionError), server.options(hide=["SIZE"]):  # noqa: PT012 - the point of the test
        with server.options(hostname="mx.example.org", data_size_limit=0):
            assert "SIZE" not in keywords(server)
            assert server.settings.hostname == "mx.example.org"
        assert "SIZE" not in keywords(server)
        assert server.settings.hostname == "localhost"
        _ = 1 / 0
    assert {"SIZE", "DSN"} <= keywords(server)


def test_open_sessions_go_on_as_they_began(server: RecordingServer) -> None:
    """A session that is open has the options it began with; the next one has others."""
    with RawClient(server.address) as client:
        client.read_reply()
        with server.options(strict=True, tls="implicit"):
            assert client.ask("EHLO under_score").startswith("250")
            assert server.url.startswith("smtps://")
            with smtplib.SMTP_SSL("localhost", server.port, context=server.client_ssl_context) as other:
                assert other.ehlo("under_score")[0] == 501
        assert client.ask("NOOP").startswith("250")


def test_a_block_outlives_a_reset(server: RecordingServer) -> None:
    """A server that is reset inside a block has the options of the block still; behind it, those of the reset."""
    with server.options(hostname="block.example"):
        server.reset(hostname="reset.example", max_recipients=3)
        assert (server.settings.hostname, server.settings.max_recipients) == ("block.example", 3)
    assert (server.settings.hostname, server.settings.max_recipients) == ("reset.example", 3)
    server.reset()
    assert server.settings.hostname == "localhost"


def test_blocks_may_end_in_any_order(server: RecordingServer) -> None:
    """Of blocks that overlap, each ends what it has begun."""
    first, second = server.options(hostname="first.example", strict=True), server.options(hostname="second.example")
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert (server.settings.hostname, server.settings.strict) == ("second.example", False)
    second.__exit__(None, None, None)
    assert server.settings.hostname == "localhost"


def test_the_innermost_of_equal_blocks_ends_first(server: RecordingServer) -> None:
    """A block that ends gives way to the one around it, also where one further out is equal."""
    with server.options(hostname="a.example"), server.options(hostname="b.example"):
        with server.options(hostname="a.example"):
            assert server.settings.hostname == "a.example"
        assert server.settings.hostname == "b.example"


def test_options_of_a_server_that_does_not_run() -> None:
    """Options can be changed before the start and after the end, and hold when it is started then."""
    server = RecordingServer()
    with server.options(hide=["SIZE"]), server:
        assert "SIZE" not in keywords(server)
    with server, server.options(max_errors=1):
        assert "SIZE" in keywords(server)


@pytest.mark.parametrize("option", ["host", "port"])
def test_a_server_stays_where_it_is(server: RecordingServer, option: str) -> None:
    """The address is no option that could change: the error says so, and what to do."""
    change: dict[str, Any] = {option: "x"}
    error = f"^{option} can't change, the server stays where it is; make_smtpd_server makes another one$"
    with pytest.raises(TypeError, match=error), server.options(**change):
        pass


# As new.


def change_to_strict(server: RecordingServer) -> None:
    """Change an option."""
    server.reset("b", strict=True)


def test_reset_gives_the_first_options_back() -> None:
    """`reset` goes back to the constructor's options, with those that it is given."""
    with RecordingServer(hostname="mx.example.org") as server:
        server.reset(hide=["SIZE"])
        assert (server.settings.hostname, "SIZE" in keywords(server)) == ("mx.example.org", False)
        server.reset(hostname="mx2.example.org")
        assert (server.settings.hostname, "SIZE" in keywords(server)) == ("mx2.example.org", True)
        server.reset()
        assert server.settings.hostname == "mx.example.org"


def users(user: str) -> str | None:
    """Return the password of a user."""
    return user


@pytest.mark.parametrize(
    "reset",
    [
        lambda server: server.reset("b"),
        lambda server: server.reset("b", strict=False),
        lambda server: server.reset("b", hide=["SIZE"]),
        lambda server: server.reset("b", users=users),
    ],
    ids=["nothing", "a default", "the same", "the same function"],
)
def test_reset_leaves_sessions_alone_where_options_stay(reset: Callable[[RecordingServer], None]) -> None:
    """A connection that a client keeps is as good as new where no option becomes another one."""
    with RecordingServer(hide=("SIZE",), users=users) as server, RawClient(server.address) as client:
        client.read_reply()
        reset(server)
        assert client.ask("NOOP").startswith("250")
        assert server.messages.generation.owner == "b"
        assert len(server.dialogues) == 1


def test_reset_ends_sessions_where_options_change(server: RecordingServer) -> None:
    """Where options change, open sessions end with 421, and nothing of that is left to the next owner."""
    with RawClient(server.address) as client:
        client.read_reply()
        client.ask("EHLO client.example")
        client.ask("MAIL FROM:<ada@example.org>")
        change_to_strict(server)
        assert client.read_reply() == "421 4.3.2 Service not available, its options have changed"
        assert client.read_reply() == ""
    server.wait_until_idle()
    assert not server.is_used
    assert (server.dialogues, server.aborted, server.late) == ([], [], [])


# What EHLO says.


def offers(options: dict[str, Any]) -> tuple[set[str], set[str]]:
    """Return the lines of the EHLO reply before TLS and after, without the first one."""
    with RecordingServer(tls="starttls", **options) as server, smtplib.SMTP("localhost", server.port) as client:
        before = client.ehlo()[1].decode().splitlines()[1:]
        client.starttls(context=server.client_ssl_context)
        after = client.ehlo()[1].decode().splitlines()[1:]
        assert len(before) == len(set(before))
        return set(before), set(after)


@pytest.mark.parametrize(
    ("options", "before", "after"),
    [
        ({"hide": ["SIZE"]}, {"-SIZE 33554432"}, {"-SIZE 33554432"}),
        ({"hide": ["DSN"], "hide_after_tls": []}, {"-DSN"}, set()),
        ({"hide_after_tls": ["DSN", "help"]}, set(), {"-DSN", "-HELP"}),
        ({"hide": "DSN", "hide_after_tls": "DSN"}, {"-DSN"}, {"-DSN"}),
        ({"advertise": ["XFOO", "XBAR a b"]}, {"+XFOO", "+XBAR a b"}, {"+XFOO", "+XBAR a b"}),
        ({"advertise": "XFOO", "advertise_after_tls": ()}, {"+XFOO"}, set()),
        ({"advertise_after_tls": ["AUTH PLAIN"]}, set(), {"+AUTH PLAIN"}),
        ({"hide": ["SIZE"], "advertise": ["SIZE 10"]}, {"-SIZE 33554432", "+SIZE 10"}, {"-SIZE 33554432", "+SIZE 10"}),
    ],
)
def test_extensions_are_hidden_and_invented(options: dict[str, Any], before: set[str], after: set[str]) -> None:
    """EHLO lacks what is hidden and has what is invented, after TLS the same or something else."""
    for usual, found, expected in zip(offers({}), offers(options), (before, after), strict=True):
        differences = {f"+{line}" for line in found - usual} | {f"-{line}" for line in usual - found}
        assert differences == expected


def test_nothing_is_behind_an_invented_extension() -> None:
    """A server that advertises what it does not have answers 500 to it; what is hidden only once is served."""
    with (
        RecordingServer(hide=["CHUNKING"], advertise=["CHUNKING", "XFOO"]) as server,
        RawClient(server.address) as client,
    ):
        client.read_reply()
        assert "CHUNKING" in client.ask("EHLO client.example")
        assert [client.ask(command)[:3] for command in ("BDAT 0 LAST", "XFOO")] == ["500", "500"]
    with RecordingServer(hide=["CHUNKING"], hide_after_tls=[]) as server, RawClient(server.address) as client:
        client.read_reply()
        assert "CHUNKING" not in client.ask("EHLO client.example")
        assert client.ask("BDAT 0 LAST")[:3] == "503"
