"""Presets: rules, and the mishaps of the field that are made of a few of them."""

from __future__ import annotations

import contextlib
import threading
from collections import Counter, defaultdict, deque
from typing import TYPE_CHECKING, Any

from pytest_smtpd.protocol.grammar import canonical_mailbox
from pytest_smtpd.protocol.replies import Reply
from pytest_smtpd.smtpd.service import Service

from .channel import RecordingChannel
from .outbox import News

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .faults import Rule
    from .message import Message
    from .outbox import Outbox
    from .rules import Rules

_TEST_ENDED = Reply(421, "Service not available, the test has ended", "4.3.2")


class Presets(Service):
    """What a server does instead of what a well-behaved one does: a base class of RecordingServer."""

    #: The messages received since the server was made or cleared.
    messages: Outbox
    #: What `on` has added.
    rules: Rules

    def on(
        self,
        stage: str,
        match: Callable[[Message], object] | None = None,
        *,
        after_bytes: int | None = None,
        **options: Any,
    ) -> Rule:
        """Return a rule: what to do instead of what a well-behaved server does, as its methods say then.

            server.on("RCPT", rcpttos="bob@example.org", times=2).defer("4.2.1 Mailbox busy")

        `stage` is a verb such as "RCPT", "CONNECT", "CONTENT" (behind the content of a message, in LMTP once for
        each recipient), "TLS" (the handshake) or "ANY". AUTH stands for each line of an exchange. `match` is
        asked with what is known of the message so far; criteria go by name as in `assert_received`. In the
        stage RCPT, `rcpttos` is the recipient that is asked for. The window: `times`, `after`, `every`, `nth`,
        `probability` and `seed`, see `Window`. With `after_bytes`, CONTENT stands for the moment when so many
        octets have come, and more are to.

        For each event the first rule applies that fits, once it has an action. Rules end with the test. Raises
        ValueError and TypeError for arguments that make no sense.
        """
        __tracebackhide__ = True
        rule = self.rules.add(stage, match, after_bytes, options)
        if after_bytes is not None:
            self.call(self._set_marks)
        return rule

    def assert_rules_applied(self) -> None:
        """Raise AssertionError, naming them, if there are rules that have never applied.

        Those with a probability don't count. For tests that use the fixtures, the plugin asks this at their end,
        unless the option `allow_unused_rules` is given.
        """
        __tracebackhide__ = True
        if unused := self.rules.unused:
            from .explanation import Section

            section = Section("Rules that have never applied", [rule.summary for rule in unused])
            raise AssertionError("\n".join(section.lines))

    def end_rules(self) -> None:
        """Forget all rules, and end the sessions that wait for one."""
        if self.rules.given:
            self.rules.clear()
            self.call(self._release)

    def _release(self) -> None:
        self._set_marks()
        for channel in self._recording_channels:
            if channel.waits_for_rule:
                channel.end(_TEST_ENDED)

    def _set_marks(self) -> None:
        """Have the open sessions know after how many octets of content there are rules."""
        for channel in self._recording_channels:
            channel.set_marks(self.rules.marks)

    @property
    def _recording_channels(self) -> list[RecordingChannel]:
        # Also from other threads, while clients come and go.
        return [channel for channel in list(self._channels) if isinstance(channel, RecordingChannel)]

    # Presets.

    def greylist(self, seconds: float = 0.0, text: str = "450 4.7.1 Greylisted, try again later") -> Rule:
        """Defer each recipient at first: until the client comes again, `seconds` after the first time or later.

        Whether it is again goes by the client's host, the reverse-path and the recipient.
        """
        from .actions import check_positive

        if seconds:
            check_positive("greylist", seconds)
        first: dict[tuple[str, ...], float] = {}

        def is_greylisted(message: Message) -> bool:
            addresses = (message.mailfrom, *message.rcpttos)
            triplet = (str(message.peer[0]), *map(canonical_mailbox, addresses))
            now = self.clock()
            is_new = triplet not in first
            return is_new | (now - first.setdefault(triplet, now) < seconds)

        return _refuse(self.on("RCPT", is_greylisted), text)

    def rate_limit(
        self, messages: int, seconds: float | None = None, text: str = "450 4.7.1 Too much mail, try again later"
    ) -> Rule:
        """Defer MAIL when a client's host has begun so many messages within these seconds; None: ever."""
        from .actions import check_positive
        from .window import check_count

        check_count("messages", messages, 1)
        if seconds is not None:
            check_positive("rate_limit", seconds)
        begun: dict[str, deque[float]] = defaultdict(deque)

        def exceeds_rate(message: Message) -> bool:
            times, now = begun[str(message.peer[0])], self.clock()
            while seconds is not None and times and times[0] <= now - seconds:
                times.popleft()
            if len(times) >= messages:
                return True
            times.append(now)
            return False

        return _refuse(self.on("MAIL", exceeds_rate), text)

    def quota(self, octets: int, text: str = "452 4.2.2 Mailbox full") -> Rule:
        """Refuse messages with which a recipient would have more octets in `messages` than this."""
        from .window import check_count

        check_count("octets", octets, 1)

        news, held = News(self.messages), Counter[str]()

        def exceeds_quota(message: Message) -> bool:
            is_cleared, new = news.look()
            if is_cleared:
                held.clear()
            for other in new:
                held.update(dict.fromkeys(map(canonical_mailbox, other.rcpttos), other.size))
            return any(held[recipient] + message.size > octets for recipient in map(canonical_mailbox, message.rcpttos))

        return _refuse(self.on("CONTENT", exceeds_quota), text)

    @contextlib.contextmanager
    def flapping(self, up: float, down: float) -> Iterator[None]:
        """In a `with`, serve for `up` seconds, refuse connections for `down` seconds, and so on; see `down`."""
        from .actions import check_positive

        check_positive("up", up)
        check_positive("down", down)
        ended = threading.Event()

        def flap() -> None:
            while not ended.wait(up) and not self.is_closed:
                try:
                    with self.down():
                        ended.wait(down)
                except RuntimeError:
                    if self.is_down or not self._closing:  # else somebody stops it just now
                        raise

        thread = threading.Thread(target=self._keep_error, args=(flap,), name=f"{type(self).__name__} flapping")
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def _keep_error(self, work: Callable[[], None]) -> None:
        """Do something in a thread; what it raises reaches whoever stops the server."""
        try:
            work()
        except Exception as error:  # noqa: BLE001 - a thread has nobody else to tell
            self.errors.append(error)


def _refuse(rule: Rule, text: str) -> Rule:
    return rule.reject(text) if text.startswith("5") else rule.defer(text)
