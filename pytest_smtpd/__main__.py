"""The command line: `python -m pytest_smtpd`, or `pytest-smtpd`, as `python -m smtpd` was.

    python -m pytest_smtpd -n -c DebuggingServer localhost:1025

`--help` tells the options.
"""

from __future__ import annotations

import contextlib
import signal
import sys
from typing import TYPE_CHECKING

from pytest_smtpd import smtpd
from pytest_smtpd.cli.options import CommandLineError, Options, make_parser, parse
from pytest_smtpd.cli.privileges import Nobody
from pytest_smtpd.cli.serving import announce, find_cafile, forget_port, make_server, prepare

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a server as the arguments say (None: those of the program), until Ctrl-C or SIGTERM; return 0."""
    options = parse(arguments)
    if options.print_cafile:
        print(find_cafile())  # noqa: T201 - that is what was asked for
        return 0
    try:
        with _signals(), _debugging(enabled=options.debug):
            _serve(options)
    except CommandLineError as error:
        make_parser().error(str(error))
    return 0


def _serve(options: Options) -> None:
    nobody = None if options.nosetuid else Nobody.find()
    forget_port(options)
    with contextlib.closing(make_server(options)) as server:
        prepare(options, nobody)
        announce(options, server.socket.getsockname()[:2])
        if nobody:
            nobody.become()
        server.serve_forever()


@contextlib.contextmanager
def _signals() -> Iterator[None]:
    """Have SIGTERM end a server as Ctrl-C does, and both end it in peace."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with contextlib.suppress(KeyboardInterrupt):
            yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _debugging(*, enabled: bool) -> Iterator[None]:
    before = smtpd.DEBUGSTREAM
    if enabled:
        smtpd.DEBUGSTREAM = sys.stderr
    try:
        yield
    finally:
        smtpd.DEBUGSTREAM = before


if __name__ == "__main__":
    sys.exit(main())
