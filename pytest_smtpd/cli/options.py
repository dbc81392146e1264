"""The options of the command line: smtpd's, and those of RecordingServer; errors are one line and exit code 2."""

from __future__ import annotations

import argparse
import importlib
import re
import sys
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from pytest_smtpd import smtpd

if TYPE_CHECKING:
    from collections.abc import Sequence

_MAX_PORT = 65_535
_SPEC = re.compile(r"(?:\[([^][]*)\]|([^][:]*)):([0-9]{1,5})")

_EXAMPLES = """\
examples:
  %(prog)s -n -c DebuggingServer localhost:1025
      print each message
  %(prog)s -n -c PureProxy localhost:1025 mail.example.org:25
      hand each message on to another server
  %(prog)s -n --json localhost:0
      print each message as a line of JSON, on any free port, which is told on standard error
  %(prog)s -n --save mails --port-file port --tls starttls --auth ada:secret localhost:0
      keep messages as files; clients encrypt, and log in; who waits for the file "port" finds the server ready

Ctrl-C and SIGTERM end it. Keys of the JSON lines: peer, helo, esmtp, mailfrom, rcpttos, mail_options,
rcpt_options, subject, headers (decoded values by name in lower case), text, html, attachments, data (base64),
tls, auth, received_at, file.
"""


class CommandLineError(Exception):
    """Ends the program with one line of error, and exit code 2."""


class Options(argparse.Namespace):
    """What the command line says."""

    localspec: tuple[str, int]
    remotespec: tuple[str, int]
    nosetuid: bool
    server_class: str | None
    size: int
    smtputf8: bool
    debug: bool
    tls: str | None
    auth: list[tuple[str, str]]
    json: bool
    save: Path | None
    port_file: Path | None
    print_cafile: bool

    @property
    def recording(self) -> list[str]:
        """The options that only a RecordingServer knows, as far as they are given."""
        given = {"--tls": self.tls, "--auth": self.auth, "--json": self.json, "--save": self.save}
        return [name for name, value in given.items() if value]

    def find_class(self) -> type[smtpd.SMTPServer]:
        """Return the class of the server; raises CommandLineError if there is none such."""
        name = self.server_class or ("RecordingServer" if self.recording else "PureProxy")
        if name == "RecordingServer":
            name = "pytest_smtpd.testing.recording.RecordingServer"
        found = _find(name)
        if not (isinstance(found, type) and issubclass(found, smtpd.SMTPServer)):
            msg = f"-c: {name} is no class of servers; it takes SMTPServer, DebuggingServer, PureProxy, MailmanProxy, "
            raise CommandLineError(msg + "RecordingServer, or package.module.Class for a subclass of one of them")
        return found


def parse(arguments: Sequence[str] | None) -> Options:
    """Return what these arguments (None: those of the program) say; ends the program if it is nonsense."""
    return make_parser().parse_intermixed_args(arguments, Options())


class Parser(argparse.ArgumentParser):
    """Tells errors in one line."""

    def error(self, message: str) -> NoReturn:
        """End the program with an error."""
        self.exit(2, f"{self.prog}: error: {message}\n")


def make_parser() -> Parser:
    """Return what reads the command line, and explains it."""
    parser = Parser(
        prog="pytest-smtpd",
        description="Run an SMTP server until Ctrl-C, as `python -m smtpd` did.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_classic_options(parser)
    _add_recording_options(parser.add_argument_group("options of RecordingServer and its subclasses, which imply it"))
    return parser


def _add_classic_options(parser: Parser) -> None:
    add = parser.add_argument
    # Their defaults are not to be had in help texts by %(default)s: positional arguments may stand between options.
    text = "where to listen (default: localhost:8025); port 0 takes a free one, and tells which"
    add("localspec", metavar="localhost:port", nargs="?", type=_read_spec, default="localhost:8025", help=text)
    text = "where proxies send to (default: localhost:25)"
    add("remotespec", metavar="remotehost:port", nargs="?", type=_read_spec, default="localhost:25", help=text)
    text = "don't become the user \"nobody\", which takes root's rights"
    add("-n", "--nosetuid", action="store_true", help=text)
    add("-V", "--version", action="version", version=_version(), help="print the version, and exit")
    text = "SMTPServer, DebuggingServer, PureProxy (default), MailmanProxy, RecordingServer, or package.module.Class"
    add("-c", "--class", dest="server_class", metavar="CLASS", help=text)
    text = "how large a message may be, 0 for any size (default: %(default)s)"
    add("-s", "--size", type=_read_size, default=smtpd.DATA_SIZE_DEFAULT, metavar="BYTES", help=text)
    text = "offer SMTPUTF8, as RecordingServer does anyway"
    add("-u", "--smtputf8", action="store_true", help=text)
    text = "print all that is said on standard error, passwords masked"
    add("-d", "--debug", action="store_true", help=text)
    text = "write the port into this file as soon as clients may connect"
    add("--port-file", type=Path, metavar="FILE", help=text)
    text = "print where the certificate is with which clients verify a server with --tls, and exit"
    add("--print-cafile", action="store_true", help=text)


def _add_recording_options(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--json", action="store_true", help="print each message as a line of JSON")
    text = "write each message into a file of its own: 000001.eml, 000002.eml, ..."
    add("--save", type=Path, metavar="DIR", help=text)
    text = "encrypt, when the client asks for it or from the start, with a certificate for localhost"
    add("--tls", choices=("starttls", "implicit"), help=text)
    text = "refuse mail from who has not logged in as this user; may be given several times"
    add("--auth", action="append", type=_read_user, default=[], metavar="USER:PASSWORD", help=text)


def _version() -> str:
    name = "pytest-smtpd-server"
    try:
        return f"{name} {metadata.version(name)}"
    except metadata.PackageNotFoundError:
        return f"{name}, which is not installed"


def _read_spec(text: str) -> tuple[str, int]:
    match = _SPEC.fullmatch(text)
    if match is None or int(match[3]) > _MAX_PORT:
        msg = f"{text!r} is no address such as localhost:8025 or [::1]:8025"
        raise argparse.ArgumentTypeError(msg)
    return match[1] or match[2] or "", int(match[3])


def _read_size(text: str) -> int:
    if not re.fullmatch("[0-9]+", text):
        msg = f"{text!r} is no number of bytes"
        raise argparse.ArgumentTypeError(msg)
    return int(text)


def _read_user(text: str) -> tuple[str, str]:
    user, colon, password = text.partition(":")
    if not (user and colon):
        msg = "it takes USER:PASSWORD"  # and does not repeat a password
        raise argparse.ArgumentTypeError(msg)
    return user, password


def _find(name: str) -> object:
    module_name, _, class_name = name.rpartition(".")
    if not module_name:
        return getattr(smtpd, class_name, None)
    if "" not in sys.path:
        sys.path.insert(0, "")  # as with python -m
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        msg = f"-c: {module_name} can't be imported: {type(error).__name__}: {error}"
        raise CommandLineError(msg) from error
    return getattr(module, class_name, None)
