"""Output: lines and files of messages, of good ones and of others."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_smtpd import Identity, Message, TLSInfo
from pytest_smtpd.cli.output import SAMPLE, Printer, describe

if TYPE_CHECKING:
    from collections.abc import Callable


def make_message(data: bytes, **others: Any) -> Message:
    """Return a message with this content."""
    return Message(peer=("127.0.0.1", 1), mailfrom="ada@example.org", rcpttos=["bob@example.org"], data=data, **others)


#: Content that is hard to show.
HOSTILE = {
    "nothing": b"",
    "no headers": b"\r\nhello",
    "8-bit headers": b"Subject: \xff\xfe caf\xe9\r\nX-\xff: \xe9\r\n\r\n",
    "lone surrogates": b"Content-Type: text/plain; charset=utf-7\r\n\r\n+2AA-\r\n",
    "control characters": b"Subject: \x1b[31m =?utf-8?q?=0A=1B?=\r\n\r\n\x00\x1b\r\n",
    "no such charset": b"Content-Type: text/plain; charset=no\r\n\r\n\xff\r\n",
    "an attachment without end": b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Disposition: "
    b"attachment; filename*=utf-8''%ff\r\n\r\nx",
    "a header again and again": b"To: a@b\r\n" * 100,
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("as_json", [True, False], ids=["json", "plain"])
def test_any_message_is_one_line(data: bytes, as_json: bool) -> None:  # noqa: FBT001 - parametrized
    """Whatever a message is made of, it is printed as one line without control characters, and no surrogates."""
    line = Printer(as_json=as_json, directory=None).format(make_message(data), None).decode()
    assert line.endswith("\n")
    assert line[:-1].isprintable()
    if as_json:
        described = json.loads(line)
        assert base64.b64decode(described["data"]) == data
        assert json.dumps(described, ensure_ascii=False).encode()


def test_tls_and_authentication_are_described() -> None:
    """How the connection was encrypted and who has logged in are described, but for the password."""
    tls = TLSInfo("TLSv1.3", "TLS_AES_256_GCM_SHA384", "localhost")
    described = describe(make_message(b"", tls=tls, auth=Identity("PLAIN", "ada", "", "secret")), Path("a/b.eml"))
    assert described["tls"] == {
        "version": "TLSv1.3",
        "cipher": "TLS_AES_256_GCM_SHA384",
        "server_name": "localhost",
    }
    assert described["auth"] == {"mechanism": "PLAIN", "user": "ada", "authzid": ""}
    assert described["file"] == str(Path("a/b.eml"))


def test_the_sample_has_everything() -> None:
    """What is looked at in the sample is what is ever looked at: nothing in it is empty but what no content has."""
    described = describe(SAMPLE)
    empty = {key for key, value in described.items() if not value}
    assert empty == {"helo", "mailfrom", "mail_options", "rcpt_options", "text", "tls", "auth", "file"}


def test_messages_are_not_kept(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """A message that was printed and saved is forgotten, so that a server can run for ever."""
    printer = Printer(as_json=True, directory=tmp_path)
    for _ in range(3):
        printer.add(make_message(b"Subject: x\r\n\r\n"), 0)
    assert len(printer) == 0
    files = [json.loads(line)["file"] for line in capfd.readouterr().out.splitlines()]
    assert [Path(file).name for file in files] == ["000001.eml", "000002.eml", "000003.eml"]
    assert sorted(map(str, tmp_path.iterdir())) == files


def test_no_file_is_replaced(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Numbers that are taken, also by another server that writes there, are passed over."""
    printers = [Printer(as_json=False, directory=tmp_path) for _ in range(2)]
    for data in (b"one", b"two"):
        for printer in printers:
            printer.add(make_message(data), 0)
    contents = [path.read_bytes() for path in sorted(tmp_path.iterdir())]
    assert contents == [b"one", b"one", b"two", b"two"]
    assert "(" in capfd.readouterr().out


def _without_directory(_patch: pytest.MonkeyPatch, directory: Path) -> None:
    directory.rmdir()


def _without_space(patch: pytest.MonkeyPatch, _directory: Path) -> None:
    def write(_descriptor: int, _octets: bytes) -> int:
        raise OSError(28, "No space left on device")

    patch.setattr(os, "write", write)


@pytest.mark.parametrize("spoil", [_without_directory, _without_space])
def test_what_can_not_be_written_ends_the_program(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, spoil: Callable[[pytest.MonkeyPatch, Path], None]
) -> None:
    """An error of the file system ends the program with a line that tells it, and leaves no half file."""
    directory = tmp_path / "mails"
    directory.mkdir()
    with monkeypatch.context() as patch:
        spoil(patch, directory)
        with pytest.raises(SystemExit, match="pytest-smtpd: a message can't be written: "):
            Printer(as_json=True, directory=directory).add(make_message(b""), 0)
    assert not [path for path in tmp_path.rglob("*") if path.name.startswith(".")]
