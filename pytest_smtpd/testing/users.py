"""Users by a function of a test author's, which may raise something."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_smtpd.protocol.events import Refusal
from pytest_smtpd.protocol.replies import Reply

if TYPE_CHECKING:
    from collections.abc import Callable

_NO_PASSWORDS = Reply(454, "Temporary authentication failure", "4.7.0")


@dataclass(frozen=True, slots=True)
class GuardedUsers:
    """The function of a test author for `users`: what it raises reaches the test, the client is told to try again."""

    users: Callable[[str], str | None]
    note: Callable[[BaseException], None]

    def __call__(self, user: str) -> str | None:
        """Return the user's password, as the function does; raises `Refusal`."""
        try:
            return _check_password(self.users(user))
        except Refusal:
            raise
        except BaseException as error:
            self.note(error)
            raise Refusal(_NO_PASSWORDS) from error


def _check_password(password: object) -> str | None:
    if password is None or isinstance(password, str):
        return password
    msg = f"users: the function returns a password, which is a string, or None, not {password!r}"
    raise TypeError(msg)
