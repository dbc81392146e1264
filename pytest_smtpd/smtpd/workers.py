"""Workers: threads for calls that may block, beside the one thread that serves.

A hook that waits for another server, a database or a person must not keep all the other clients waiting. So
its connection is paused, a worker makes the call, and its result is brought back to the thread that serves:
see `SMTPChannel.answer_later`.
"""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import ThreadPoolExecutor


class Workers:
    """Up to `limit` threads, called `name`, which are made when they are needed; calls beyond that wait.

    After `shut_down` it may be used again.
    """

    def __init__(self, name: str, limit: int) -> None:
        self._name = name
        self._limit = limit
        self._executor: ThreadPoolExecutor | None = None
        self._ending: list[ThreadPoolExecutor] = []
        # What is to follow the call that a thread makes: there only while it makes one.
        self._here = threading.local()

    @property
    def runs_here(self) -> bool:
        """Whether this is the thread of a worker, in the midst of a call."""
        return getattr(self._here, "afterwards", None) is not None

    def submit(self, call: Callable[[], None]) -> None:
        """Have a worker make this call; in the thread that serves. What the call raises is lost."""
        # Imported where it is needed: it takes long to import, and most servers never need it.
        from concurrent.futures import ThreadPoolExecutor

        if self._executor is None:
            self._executor = ThreadPoolExecutor(self._limit, self._name)
        self._executor.submit(self._run, call)

    def afterwards(self, call: Callable[[], None]) -> None:
        """Have this called, in this thread, behind the call that it makes; see `runs_here`."""
        self._here.afterwards.append(call)

    def _run(self, call: Callable[[], None]) -> None:
        self._here.afterwards = []
        try:
            call()
        finally:
            afterwards, self._here.afterwards = self._here.afterwards, None
            for following in afterwards:
                following()

    def shut_down(self) -> None:
        """Make no more calls, also not those that wait; in the thread that serves, which waits for nothing."""
        if self._executor is not None:
            self._executor.shutdown(wait=False, cancel_futures=True)
            self._ending.append(self._executor)
            self._executor = None

    def join(self) -> None:
        """Wait until all threads have ended that `shut_down` left without more to do."""
        for executor in list(self._ending):
            executor.shutdown(wait=True)
            with contextlib.suppress(ValueError):  # another thread has waited for it, too
                self._ending.remove(executor)
