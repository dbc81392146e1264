"""Serving: servers from options, and what is prepared for them."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from typing import TYPE_CHECKING

import pytest

from pytest_smtpd import RecordingServer, smtpd
from pytest_smtpd.cli.options import CommandLineError, parse
from pytest_smtpd.cli.privileges import Nobody
from pytest_smtpd.cli.serving import Told, announce, find_cafile, forget_port, make_server, prepare

if TYPE_CHECKING:
    from pathlib import Path

#: Whoever runs the tests, who has nothing to give up.
MYSELF = Nobody(os.geteuid(), os.getegid())


class Broken(smtpd.SMTPServer):
    """A class of servers that none can be made of."""

    def __init__(self) -> None:
        pass


def test_classic_servers() -> None:
    """A classic class is made with the addresses, the limit and enable_SMTPUTF8, and keeps no errors."""
    options = parse(["-c", "DebuggingServer", "-u", "-s", "10", "127.0.0.1:0", "there:1"])
    with contextlib.closing(make_server(options)) as server:
        assert type(server) is smtpd.DebuggingServer
        assert server._remoteaddr == ("there", 1)  # noqa: SLF001 - it was always called so
        assert (server.data_size_limit, server.enable_SMTPUTF8) == (10, True)
        assert isinstance(server.errors, Told)


def test_recording_servers() -> None:
    """A RecordingServer gets the options for it, and notes nothing that would pile up."""
    options = parse(["--tls", "starttls", "--auth", "ada:secret", "-s", "0", "127.0.0.1:0"])
    with contextlib.closing(make_server(options)) as server:
        assert isinstance(server, RecordingServer)
        assert {"STARTTLS", "AUTH"} <= server.settings.keywords
        assert (server.settings.require_auth, server.settings.data_size_limit) == (True, 0)
        assert isinstance(server.aborted, Told)
        assert isinstance(server.tls_failures, Told)
    make_server(parse(["-c", "RecordingServer", "127.0.0.1:0"])).close()


def test_servers_that_can_not_be_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """An address that is taken or is none, and a class that refuses the arguments, are errors."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(CommandLineError, match=rf"^127.0.0.1:{port} can't be listened on: "):
            make_server(parse(["-c", "DebuggingServer", f"127.0.0.1:{port}"]))
    with pytest.raises(CommandLineError, match=r"^\[::gg\]:1 can't be listened on: "):
        make_server(parse(["--json", "[::gg]:1"]))
    with pytest.raises(CommandLineError, match=r"^--json: only RecordingServer can do that, not DebuggingServer"):
        make_server(parse(["--json", "-c", "DebuggingServer"]))
    monkeypatch.setattr(smtpd, "DebuggingServer", Broken)
    with pytest.raises(CommandLineError, match=r"^Broken: .* unexpected keyword argument"):
        make_server(parse(["-c", "DebuggingServer"]))


def test_what_is_told_is_not_kept(capsys: pytest.CaptureFixture[str]) -> None:
    """Errors are told with their traceback, other things in a line; the list stays empty."""
    told = Told()
    told.append(5)
    told += [LookupError("from a hook")]
    assert told == []
    errors = capsys.readouterr().err
    assert errors.startswith("int: 5\n")
    assert "LookupError: from a hook" in errors


@pytest.mark.parametrize("nobody", [None, MYSELF], ids=["-n", "nobody"])
def test_a_directory_is_made(tmp_path: Path, nobody: Nobody | None) -> None:
    """The directory of --save is made with those above it, belongs to who writes there, and stays empty."""
    directory = tmp_path / "a" / "b"
    for _ in range(2):
        prepare(parse(["--json", "--save", str(directory)]), nobody)
        assert list(directory.iterdir()) == []
        assert directory.stat().st_uid == MYSELF.uid


def test_a_directory_that_can_not_be_made(tmp_path: Path) -> None:
    """A file in place of the directory is an error, and so is a directory that no file can be made in."""
    (tmp_path / "file").touch()
    with pytest.raises(CommandLineError, match=r"^--save: .*file can't be made: "):
        prepare(parse(["--save", str(tmp_path / "file")]), None)
    with pytest.raises(CommandLineError, match=r'^--save: /proc can\'t be written to by "nobody"; try .* -n option: '):
        prepare(parse(["--save", "/proc"]), MYSELF)


def test_nothing_to_prepare() -> None:
    """Without --save there is nothing to be done but for nobody's imports."""
    prepare(parse([]), None)
    prepare(parse([]), MYSELF)


def test_the_address_is_announced(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """The address is told on standard error, and the port in the file, which everybody may read."""
    file = tmp_path / "port"
    options = parse(["--port-file", str(file)])
    announce(options, ("::1", 25))
    assert capsys.readouterr() == ("", "Listening on [::1]:25\n")
    assert file.read_text("ascii") == "25\n"
    assert file.stat().st_mode & stat.S_IRUSR
    announce(parse(["--tls", "implicit"]), ("127.0.0.1", 26))
    assert capsys.readouterr().err == f"Listening on 127.0.0.1:26; clients verify it with {find_cafile()}\n"
    assert list(tmp_path.iterdir()) == [file]


def test_the_port_of_the_last_time_is_forgotten(tmp_path: Path) -> None:
    """A file of an earlier server is removed, and a directory in its place is an error."""
    file = tmp_path / "port"
    file.touch()
    for _ in range(2):
        forget_port(parse(["--port-file", str(file)]))
        assert not file.exists()
    forget_port(parse([]))
    file.mkdir()
    with pytest.raises(CommandLineError, match=r"^--port-file: .*port can't be written: "):
        forget_port(parse(["--port-file", str(file)]))
