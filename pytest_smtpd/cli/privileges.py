"""Nobody: the user without rights that a server becomes which root has started."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from .options import CommandLineError

if TYPE_CHECKING:
    from collections.abc import Iterator

_HINT = "try running with -n option"


@dataclass(frozen=True, slots=True)
class Nobody:
    """The user "nobody", and its group."""

    uid: int
    gid: int

    @classmethod
    def find(cls) -> Self:
        """Return who it is; raises CommandLineError where there is none, or this process can't become it."""
        try:
            import pwd
        except ImportError as error:
            msg = f'Cannot import module "pwd"; {_HINT}.'
            raise CommandLineError(msg) from error
        try:
            entry = pwd.getpwnam("nobody")
        except KeyError as error:
            msg = f'There is no user "nobody"; {_HINT}.'
            raise CommandLineError(msg) from error
        if os.geteuid() not in {0, entry.pw_uid}:
            msg = f'Cannot setuid "nobody"; {_HINT}.'
            raise CommandLineError(msg)
        return cls(entry.pw_uid, entry.pw_gid)

    @contextlib.contextmanager
    def rights(self) -> Iterator[None]:
        """Have no other rights meanwhile; raises CommandLineError if they can't be changed."""
        if os.geteuid() == self.uid:
            yield
            return
        uid, gid = os.geteuid(), os.getegid()
        with _telling():
            os.setgroups([])  # which smtpd kept
            os.setegid(self.gid)
            os.seteuid(self.uid)
        try:
            yield
        finally:
            os.seteuid(uid)
            os.setegid(gid)

    def become(self) -> None:
        """Give up all other rights for good; raises CommandLineError if that can't be."""
        if os.geteuid() != self.uid:
            with _telling():
                os.setgid(self.gid)
                os.setuid(self.uid)


@contextlib.contextmanager
def _telling() -> Iterator[None]:
    try:
        yield
    except OSError as error:  # this is root of a container that knows no nobody
        msg = f'Cannot setuid "nobody": {error.strerror}; {_HINT}.'
        raise CommandLineError(msg) from error
