"""From options to a server that is ready: made, prepared for what it is to do, and announced."""

from __future__ import annotations

import os
import sys
import traceback
from contextlib import contextmanager, nullcontext
from importlib import import_module
from pkgutil import walk_packages
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any, Self

import pytest_smtpd

from .options import CommandLineError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from pytest_smtpd.smtpd import SMTPServer

    from .options import Options
    from .privileges import Nobody

#: Modules that others import when they need them, and that "nobody" may not be able to read by then.
_IMPORTED_LATE = (
    *("concurrent.futures.thread", "encodings.ascii", "encodings.idna", "encodings.latin_1", "linecache"),
    *("smtplib", "ssl"),
)


def _find_modules() -> Iterator[str]:
    """Yield the names of all modules of ours that a server may come to need."""
    names = (module.name for module in walk_packages(pytest_smtpd.__path__, "pytest_smtpd."))
    of_pytest = ("pytest_smtpd.plugin", "pytest_smtpd.suite.")
    return (name for name in names if not name.startswith(("pytest_smtpd.__main__", *of_pytest)))


class Told(list[Any]):
    """What a server notes for tests to look at, of which it tells on standard error instead, and keeps none."""

    def append(self, item: object) -> None:
        """Tell: of an exception its traceback."""
        if isinstance(item, BaseException):
            traceback.print_exception(item)
        else:
            print(f"{type(item).__name__}: {item}", file=sys.stderr, flush=True)  # noqa: T201 - its purpose

    def __iadd__(self, items: Iterable[object]) -> Self:  # type: ignore[misc] # list's is overloaded
        for item in items:
            self.append(item)
        return self


def make_server(options: Options) -> SMTPServer:
    """Return the server, which listens; raises CommandLineError if it can't be made."""
    server_class = options.find_class()
    records = any(base.__module__ == "pytest_smtpd.testing.recording" for base in server_class.__mro__)
    if options.recording and not records:
        msg = f"{', '.join(options.recording)}: only RecordingServer can do that, not {server_class.__name__}"
        raise CommandLineError(msg)
    make = _make_recording_server if records else _make_classic_server
    try:
        with _telling(f"{_show(options.localspec)} can't be listened on"):
            server = make(server_class, options)
    except (TypeError, ValueError) as error:
        msg = f"{server_class.__name__}: {error}"
        raise CommandLineError(msg) from error
    server.errors = Told()
    return server


def _make_classic_server(server_class: type[SMTPServer], options: Options) -> SMTPServer:
    return server_class(options.localspec, options.remotespec, options.size, enable_SMTPUTF8=options.smtputf8)


def _make_recording_server(server_class: type[Any], options: Options) -> SMTPServer:
    from .output import Printer

    keywords: dict[str, Any] = {"tls": options.tls} if options.tls else {}
    if options.auth:
        keywords |= {"users": dict(options.auth), "require_auth": True}
    server = server_class(*options.localspec, data_size_limit=options.size, **keywords)
    server.messages = Printer(as_json=options.json, directory=options.save)
    server.aborted, server.tls_failures = Told(), Told()
    return server  # type: ignore[no-any-return] # it is one


def prepare(options: Options, nobody: Nobody | None) -> None:
    """See to it that the server will be able to do what it is to do, with the rights that it will have."""
    directory = options.save
    if directory is not None:
        with _telling(f"--save: {directory} can't be made"):
            _make_directory(directory, nobody)
        rights = ' by "nobody"; try running with -n option' if nobody else ""
        with nobody.rights() if nobody else nullcontext(), _telling(f"--save: {directory} can't be written to", rights):
            TemporaryFile(dir=directory).close()
    if nobody:
        for name in (*_IMPORTED_LATE, *_find_modules()):
            import_module(name)
        from .output import SAMPLE, describe

        describe(SAMPLE)
        str(SAMPLE)


def _make_directory(directory: Path, nobody: Nobody | None) -> None:
    if not directory.is_dir():
        directory.mkdir(parents=True)
        if nobody:
            os.chown(directory, nobody.uid, nobody.gid)


def announce(options: Options, address: tuple[str, int]) -> None:
    """Tell where the server listens: on standard error, and in the file for who waits for it."""
    text = f"Listening on {_show(address)}"
    if options.tls:
        text += f"; clients verify it with {find_cafile()}"
    print(text, file=sys.stderr, flush=True)  # noqa: T201 - standard output is for messages
    if options.port_file:
        unfinished = options.port_file.with_name(f".{options.port_file.name}.{os.getpid()}")
        with _telling(f"--port-file: {options.port_file} can't be written"):
            unfinished.write_text(f"{address[1]}\n", "ascii")
            unfinished.replace(options.port_file)


def forget_port(options: Options) -> None:
    """Remove the file that tells the port, so that nobody takes the one of the last time for this one's."""
    if options.port_file:
        with _telling(f"--port-file: {options.port_file} can't be written"):
            options.port_file.unlink(missing_ok=True)


def find_cafile() -> str:
    """Return the path of the CA certificate with which clients verify a server."""
    from pytest_smtpd.network.tls import cafile

    return cafile()


def _show(address: tuple[str, int]) -> str:
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@contextmanager
def _telling(what: str, hint: str = "") -> Iterator[None]:
    """Turn an OSError into what the user is told."""
    try:
        yield
    except OSError as error:
        msg = f"{what}{hint}: {error.strerror or error}"
        raise CommandLineError(msg) from error
