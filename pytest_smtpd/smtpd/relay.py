"""Relay: what one client's session has to do with the next hop; Pool: the connections to it that wait for use."""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import TYPE_CHECKING

from pytest_smtpd.protocol.events import OK, Refusal
from pytest_smtpd.protocol.replies import SERVICE_NOT_AVAILABLE, Reply

from .envelope import EVERYTHING
from .next_hop import NoConnectionError, Upstream

if TYPE_CHECKING:
    from collections.abc import Callable

    from .envelope import Envelope, Features, Recipient
    from .next_hop import NextHop
    from .relayed import RelayedContent

#: How many unused connections are kept, and for how many seconds one is good.
MAX_IDLE, IDLE_SECONDS = 20, 60.0

NO_TRANSACTION = Reply(451, "Error: the connection to the next hop was lost", "4.4.2")
_FALSE_END = Reply(
    554,
    "Error: a dot between bare line ends, which some servers take for the end, and the next hop has no CHUNKING",
    "5.6.0",
)


class Pool:
    """Connections to a next hop that no transaction uses; for any thread."""

    def __init__(self, hop: NextHop) -> None:
        self._hop = hop
        self._idle: deque[tuple[float, Upstream]] = deque()
        self._changing = threading.Lock()
        self._closed = False
        #: What the next hop offered last.
        self.features: Features = EVERYTHING

    def take(self) -> Upstream:
        """Return the connection used last, if it can still be used; else a new one, which is to be opened."""
        stale: list[Upstream] = []
        with self._changing:
            found = None
            while self._idle and found is None:
                since, upstream = self._idle.pop()
                if upstream.is_alive and time.monotonic() < since + IDLE_SECONDS:
                    found = upstream
                else:
                    stale.append(upstream)
        for upstream in stale:
            upstream.leave()
        return found or Upstream(self._hop)

    def give_back(self, upstream: Upstream) -> None:
        """Keep a connection that is open and has no transaction."""
        surplus: Upstream | None = upstream
        with self._changing:
            if not self._closed:
                surplus = self._idle.popleft()[1] if len(self._idle) >= MAX_IDLE else None
                self._idle.append((time.monotonic(), upstream))
        if surplus is not None:
            surplus.leave()

    def close(self) -> None:
        """Leave the next hop; connections that are given back later are closed."""
        with self._changing:
            idle, self._idle = self._idle, deque()
            self._closed = True
        for _, upstream in idle:
            upstream.leave()


class Relay:
    """What one session has to do with a next hop: a transaction at a time, for which it holds a connection.

    Its methods block, so they are called in workers, one at a time; `abort` ends that from any thread. They return
    the next hop's replies. Where it fails they return 451, and it never was given a message whole.
    """

    def __init__(self, pool: Pool, growth: int = 0) -> None:
        self._pool = pool
        #: By how many octets messages grow on the way.
        self.growth = growth
        self._upstream: Upstream | None = None
        #: What the next hop has accepted of the open transaction.
        self._accepted: Envelope | None = None
        # Held where it is decided who closes a connection that is aborted: whoever uses it, or else who aborts.
        self._ending = threading.Lock()
        self._busy = self._aborted = False

    @property
    def in_transaction(self) -> bool:
        """Whether the next hop waits for more of a transaction."""
        return self._accepted is not None

    def features(self) -> Features:
        """Return what the next hop offers; if it can't be reached what it offered last, or everything."""

        def look() -> Reply:
            self._release(self._connect()[0])
            return OK

        self._attempt(look)
        return self._pool.features

    def begin(self, envelope: Envelope) -> Reply:
        """Begin a transaction: MAIL."""
        return self._attempt(lambda: self._begin(envelope))

    def add(self, recipient: Recipient) -> Reply:
        """Add a recipient to the transaction: RCPT."""
        return self._attempt(lambda: self._add(recipient))

    def reset(self) -> None:
        """End the transaction, if there is one: RSET."""
        self._attempt(self._end_transaction)

    def deliver(self, envelope: Envelope, content: RelayedContent) -> Reply:
        """Hand a message on; in the open transaction if that has this envelope, else in one of its own.

        That one is given up if a single recipient is refused.
        """
        return self._attempt(lambda: self._deliver(envelope, content))

    def abort(self) -> None:
        """Give up, from any thread: what blocks returns at once, and nothing is sent any more."""
        with self._ending:
            self._aborted = True
            upstream = self._upstream
            if upstream is not None:
                upstream.abort()
                if not self._busy:
                    self._drop()

    def _attempt(self, call: Callable[[], Reply]) -> Reply:
        with self._ending:
            self._busy = True
        try:
            return self._answer(call)
        finally:
            with self._ending:
                self._busy = False
                if self._aborted:
                    self._drop()

    def _answer(self, call: Callable[[], Reply]) -> Reply:
        try:
            reply = call()
        except Refusal as refusal:
            reply = refusal.reply
        except OSError as error:
            self._drop()
            missing = isinstance(error, NoConnectionError)
            what = "no connection to" if missing else "the connection to"
            return Reply(451, f"Error: {what} the next hop: {error}", "4.4.1" if missing else "4.4.2")
        except BaseException:
            self._drop()
            raise
        if reply.code != SERVICE_NOT_AVAILABLE:
            return reply
        # It closes its connection; the client's is none of its business (RFC 5321 3.8).
        self._drop()
        return Reply(451, reply.text, reply.enhanced, utf8=reply.utf8)

    # In the use of a connection.

    def _connect(self) -> tuple[Upstream, bool]:
        """Return the connection, and whether it was in use before: then it may prove dead."""
        upstream = self._upstream = self._pool.take()
        if self._aborted:  # after `abort` can see the connection: one of the two sees the other
            msg = "the client has gone"
            raise NoConnectionError(msg)
        if upstream.is_open:
            return upstream, True
        upstream.open()
        self._pool.features = upstream.features
        return upstream, False

    def _begin(self, envelope: Envelope) -> Reply:
        self._reset()
        envelope = envelope.to(())
        while True:
            upstream, used = self._connect()
            try:
                reply = self._ask_mail(upstream, envelope)
            except TimeoutError:
                raise
            except OSError:
                if not used:
                    raise
            else:
                if reply.code != SERVICE_NOT_AVAILABLE or not used:
                    break
            # It had ended before, and nothing that matters was sent.
            self._drop()
        if reply.is_positive:
            self._accepted = envelope
        elif reply.code != SERVICE_NOT_AVAILABLE:
            self._release(upstream)
        return reply

    def _ask_mail(self, upstream: Upstream, envelope: Envelope) -> Reply:
        upstream.utf8 = "SMTPUTF8" in dict(envelope.parameters)
        try:
            command = envelope.mail_command(upstream.features, self.growth)
        except Refusal:
            self._release(upstream)
            raise
        return upstream.ask(command)

    def _add(self, recipient: Recipient) -> Reply:
        upstream, accepted = self._upstream, self._accepted
        if upstream is None or accepted is None:
            return NO_TRANSACTION
        reply = upstream.ask(accepted.rcpt_command(recipient, upstream.features))
        if reply.is_positive:
            self._accepted = accepted.to((*accepted.recipients, recipient))
        return reply

    def _deliver(self, envelope: Envelope, content: RelayedContent) -> Reply:
        upstream = self._upstream
        if upstream is None or self._accepted != envelope or not upstream.is_alive:
            upstream = self._open_anew(envelope)
        reply = self._hand_over(upstream, content)
        if reply.is_positive:
            self._release(upstream)
        elif reply.code != SERVICE_NOT_AVAILABLE:
            self._reset()
        return reply

    def _open_anew(self, envelope: Envelope) -> Upstream:
        """Open a transaction with all of this envelope; raises Refusal, with none open, when it is refused."""
        reply = self._begin(envelope)
        for recipient in envelope.recipients:
            if reply.is_positive:
                reply = self._add(recipient)
        upstream = self._upstream
        if not reply.is_positive or upstream is None:
            if reply.code != SERVICE_NOT_AVAILABLE:
                self._reset()
            raise Refusal(reply)
        return upstream

    @staticmethod
    def _hand_over(upstream: Upstream, content: RelayedContent) -> Reply:
        if content.lacks_line_end or content.has_false_end:
            if "CHUNKING" in upstream.features.keywords:
                return upstream.hand_over(content, in_a_chunk=True)
            if content.has_false_end:
                return _FALSE_END
        return upstream.hand_over(content, in_a_chunk=False)

    def _end_transaction(self) -> Reply:
        self._reset()
        return OK

    def _reset(self) -> None:
        """End the transaction, and give the connection back if that went well; what was replied before counts."""
        if self._upstream is None:
            return
        try:
            reply = self._upstream.ask("RSET")
        except OSError:
            self._drop()
            return
        if reply.is_positive:
            self._release(self._upstream)
        else:
            self._drop()

    def _release(self, upstream: Upstream) -> None:
        self._upstream = self._accepted = None
        self._pool.give_back(upstream)

    def _drop(self) -> None:
        upstream, self._upstream, self._accepted = self._upstream, None, None
        if upstream is not None:
            upstream.close()
