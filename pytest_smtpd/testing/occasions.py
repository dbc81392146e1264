"""Occasions: that to which a rule applies on a channel: a question, a handshake, content that arrives."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_smtpd.protocol.events import OK
from pytest_smtpd.protocol.mail import Content

if TYPE_CHECKING:
    from pytest_smtpd.protocol.events import Event
    from pytest_smtpd.protocol.replies import Reply

    from .channel import RecordingChannel


class Occasion:
    """What a rule's script acts on; by itself there is nothing to answer, and things go on as they would."""

    def __init__(self, channel: RecordingChannel) -> None:
        self.channel = channel

    def store(self) -> None:
        """Record the message now."""

    def drop(self) -> None:
        """See to it that the message is not recorded."""

    def usual_reply(self) -> Reply | None:
        """Return what is answered where no rule applies; None: nothing, or it comes later."""
        return None

    def octets_of(self, reply: Reply) -> bytes:
        """Return a reply as it is sent."""
        return reply.to_bytes()

    def settle(self, reply: Reply | None, sent: Reply | None) -> None:
        """Answer with `sent`, which is `reply` or the rest of it; None: go on."""
        raise NotImplementedError


class Question(Occasion):
    """An event of the session."""

    def __init__(self, channel: RecordingChannel, event: Event) -> None:
        super().__init__(channel)
        self._event = event

    def store(self) -> None:
        """Record the message now."""
        if isinstance(self._event, Content):
            self.channel.store(self._event, OK)

    def drop(self) -> None:
        """See to it that the message is not recorded."""
        if isinstance(self._event, Content):
            self._event.stored = True

    def usual_reply(self) -> Reply | None:
        """Return what a subclass or the session answers."""
        return self.channel.usual_answer(self._event)

    def octets_of(self, reply: Reply) -> bytes:
        """Return a reply as the session sends it, with its enhanced status code where that is offered."""
        return self.channel.session.octets_of(self._event, reply)

    def settle(self, reply: Reply | None, sent: Reply | None) -> None:
        """Answer."""
        if reply is not None and sent is not None:
            self.channel.complete(self._event, reply, sent)


class Handshake(Occasion):
    """The beginning of TLS. An answer to it is one in plain text."""

    def settle(self, reply: Reply | None, sent: Reply | None) -> None:  # noqa: ARG002 - an Occasion's
        """Begin TLS, or send something else and close."""
        if sent is None:
            self.channel.start_handshake()
        else:
            self.channel.conn.write(sent.to_bytes())
            self.channel.hang_up("the server has answered the handshake in plain text")


class Arrival(Occasion):
    """Octets of content, of which more are to come."""

    def __init__(self, channel: RecordingChannel, data: bytes) -> None:
        super().__init__(channel)
        self._data = data

    def settle(self, reply: Reply | None, sent: Reply | None) -> None:
        """Go on, having answered too early if there is an answer."""
        channel = self.channel
        if reply is not None and sent is not None:
            channel.dialogue.add(channel.smtp_server.clock(), None, reply)
            channel.conn.write(sent.to_bytes())
        channel.conn.resume_reading()
        channel.take(self._data)
