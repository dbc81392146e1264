"""Options: what arguments mean, which class they choose, and what is no sense."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_smtpd import RecordingServer, smtpd
from pytest_smtpd.cli.options import CommandLineError, parse


def test_defaults() -> None:
    """Without arguments, the options are smtpd's defaults."""
    options = parse([])
    assert (options.localspec, options.remotespec, options.size) == (("localhost", 8025), ("localhost", 25), 33_554_432)
    assert [options.nosetuid, options.smtputf8, options.debug, options.print_cafile, options.recording] == [
        False
    ] * 4 + [[]]
    assert options.port_file is None


@pytest.mark.parametrize(
    "arguments",
    [
        "-n -u -d -s 10 -c DebuggingServer localhost:1 [::1]:2",
        "--nosetuid --smtputf8 --debug --size=10 --class=DebuggingServer localhost:1 [::1]:2",
        "localhost:1 -nud -s10 [::1]:2 -cDebuggingServer",
    ],
    ids=["short", "long", "mixed"],
)
def test_smtpds_options(arguments: str) -> None:
    """Smtpd's options have their short and long forms, before, between and behind the addresses."""
    options = parse(arguments.split())
    assert (options.localspec, options.remotespec, options.size) == (("localhost", 1), ("::1", 2), 10)
    assert options.nosetuid
    assert options.smtputf8
    assert options.debug
    assert options.find_class() is smtpd.DebuggingServer


@pytest.mark.parametrize(
    ("spec", "address"),
    [("127.0.0.1:0", ("127.0.0.1", 0)), (":25", ("", 25)), ("[]:25", ("", 25)), ("[::1]:65535", ("::1", 65535))],
)
def test_addresses(spec: str, address: tuple[str, int]) -> None:
    """An address is a host and a port; IPv6 stands in brackets, and no host means all addresses."""
    assert parse([spec]).localspec == address


def test_options_of_recording_servers() -> None:
    """Each option that only RecordingServer has chooses it, and several of them go together."""
    options = parse(["--json", "--save", "mails", "--tls", "starttls", "--auth", "ada:se:cret", "--auth", "bob:"])
    assert options.recording == ["--tls", "--auth", "--json", "--save"]
    assert options.auth == [("ada", "se:cret"), ("bob", "")]
    assert options.save == Path("mails")
    assert options.find_class() is RecordingServer
    for argument in ("--json", "--save=x", "--tls=implicit", "--auth=a:b", "-c=RecordingServer"):
        assert parse([argument.replace("-c=", "-c")]).find_class() is RecordingServer


def test_the_default_class_is_smtpds() -> None:
    """Without -c, the class is PureProxy, as it was for smtpd."""
    assert parse([]).find_class() is smtpd.PureProxy


def test_a_class_may_be_anywhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A dotted name is a class in a module, also in one of the present directory, imported once."""
    assert parse(["-c", "pytest_smtpd.smtpd.SMTPServer"]).find_class() is smtpd.SMTPServer
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", ["/nowhere"])
    Path("my_servers.py").write_text("from pytest_smtpd import RecordingServer as Mine", "ascii")
    for _ in range(2):
        assert parse(["-c", "my_servers.Mine", "--json"]).find_class() is RecordingServer


@pytest.mark.parametrize("name", ["Nothing", "loop", "SMTPChannel", "json.nothing", "json.loads", "no.such", "."])
def test_what_is_no_class_of_servers(name: str) -> None:
    """What is no class, no class of servers, or not there at all is an error."""
    with pytest.raises(CommandLineError, match=r"^-c: "):
        parse(["-c", name]).find_class()


@pytest.mark.parametrize(
    "arguments",
    [["x"], ["x:25", "y"], ["x:66666"], ["-s", "1k"], ["-s", "-1"], ["--auth", "x"], ["--auth", ":x"], ["--x"]],
)
def test_nonsense(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """What can't be read ends the program with exit code 2 and one line, in which no password is repeated."""
    with pytest.raises(SystemExit) as caught:
        parse(arguments)
    assert caught.value.code == 2
    errors = capsys.readouterr().err
    assert errors.startswith("pytest-smtpd: error: ")
    assert errors.count("\n") == 1
    assert arguments[0] != "--auth" or "'" not in errors


def test_the_version_of_a_checkout(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Where the distribution is not installed, everything works, and the version says so."""
    monkeypatch.setattr("sys.path", ["/nowhere"])
    with pytest.raises(SystemExit) as caught:
        parse(["-V"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == "pytest-smtpd-server, which is not installed\n"
