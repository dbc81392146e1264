"""Nobody: which calls change the rights of the process, and what can't be; with doubles for the calls."""

from __future__ import annotations

import os
import pwd
import sys
from typing import TYPE_CHECKING

import pytest

from pytest_smtpd.cli.options import CommandLineError
from pytest_smtpd.cli.privileges import Nobody

if TYPE_CHECKING:
    from collections.abc import Callable

NOBODY = Nobody(65534, 65533)


class Process:
    """A process whose rights can be changed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, uid: int, refuses: str = "") -> None:
        self.calls: list[tuple[str, object]] = []
        monkeypatch.setattr(os, "geteuid", lambda: uid)
        monkeypatch.setattr(os, "getegid", lambda: uid)
        for name in ("setgroups", "setegid", "seteuid", "setgid", "setuid"):
            monkeypatch.setattr(os, name, self._double(name, refuses))

    def _double(self, name: str, refuses: str) -> Callable[[object], None]:
        def call(value: object) -> None:
            if name == refuses:
                raise PermissionError(1, "Operation not permitted")
            self.calls.append((name, value))

        return call


def test_nobody_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """For root and for nobody, nobody is the user of that name."""
    entry = pwd.getpwnam("nobody")
    for uid in (0, entry.pw_uid):
        Process(monkeypatch, uid)
        assert Nobody.find() == Nobody(entry.pw_uid, entry.pw_gid)


def test_only_root_can_become_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """For any other user it is an error, in smtpd's words."""
    Process(monkeypatch, 1000)
    with pytest.raises(CommandLineError, match=r'^Cannot setuid "nobody"; try running with -n option.$'):
        Nobody.find()


def test_there_may_be_no_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """A system without such a user is an error."""

    def getpwnam(name: str) -> None:
        raise KeyError(name)

    monkeypatch.setattr(pwd, "getpwnam", getpwnam)
    with pytest.raises(CommandLineError, match=r'^There is no user "nobody"; try running with -n option.$'):
        Nobody.find()


def test_there_may_be_no_users_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """A system without pwd, as Windows, is an error, in smtpd's words."""
    monkeypatch.setitem(sys.modules, "pwd", None)
    with pytest.raises(CommandLineError, match=r'^Cannot import module "pwd"; try running with -n option.$'):
        Nobody.find()


def test_root_changes_its_rights(monkeypatch: pytest.MonkeyPatch) -> None:
    """Root gives up its groups, changes for a while and comes back, and changes for good."""
    process = Process(monkeypatch, 0)
    with NOBODY.rights():
        process.calls.append(("body", None))
    NOBODY.become()
    assert process.calls == [
        ("setgroups", []),
        ("setegid", 65533),
        ("seteuid", 65534),
        ("body", None),
        ("seteuid", 0),
        ("setegid", 0),
        ("setgid", 65533),
        ("setuid", 65534),
    ]


def test_nobody_has_nothing_to_change(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is nobody by now stays it, without a call."""
    process = Process(monkeypatch, 65534)
    with NOBODY.rights():
        process.calls.append(("body", None))
    NOBODY.become()
    assert process.calls == [("body", None)]


@pytest.mark.parametrize("refuses", ["setgroups", "seteuid"])
def test_root_may_have_no_rights(monkeypatch: pytest.MonkeyPatch, refuses: str) -> None:
    """Where root can't change its rights, as in some containers, it is an error."""
    Process(monkeypatch, 0, refuses)
    with pytest.raises(CommandLineError, match=r'^Cannot setuid "nobody": Operation not permitted; '), NOBODY.rights():
        pass


def test_become_may_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last step may be refused as well."""
    Process(monkeypatch, 0, "setuid")
    with pytest.raises(CommandLineError, match=r'^Cannot setuid "nobody": '):
        NOBODY.become()
