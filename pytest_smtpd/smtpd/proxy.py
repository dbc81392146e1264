"""PureProxy: relays what it receives to a real server, the upstream, whose answers are its answers."""

from __future__ import annotations

import contextlib
import threading
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from pytest_smtpd.protocol.mail import Mail, Rcpt
from pytest_smtpd.protocol.replies import Reply
from pytest_smtpd.protocol.state import DATA_SIZE_DEFAULT, check_limit

from .channel import SMTPChannel
from .envelope import Envelope, Features, Recipient, offer
from .next_hop import NextHop
from .policy import RelayPolicy, is_loopback
from .relay import Pool, Relay
from .relayed import RelayedContent, x_peer
from .server import SMTPServer, classic_data

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterable, Iterator

    from pytest_smtpd.network.connection import Address
    from pytest_smtpd.protocol.events import Event
    from pytest_smtpd.protocol.mail import Content
    from pytest_smtpd.protocol.state import Settings

#: From which number of passed relays on a message is taken to go in circles (RFC 5321 6.3).
MAX_RECEIVED = 100
#: How many clients a proxy has at once: each may hold a thread, and two proxies that lead to each other fill both.
MAX_CONNECTIONS = 100
#: How many seconds a client may be silent (RFC 5321 4.5.3.2.7), who may hold a connection to the upstream.
IDLE_SECONDS = 300.0
#: By how many octets a message grows at the most: the X-Peer line, and a line end in front of it.
GROWTH = 80

_LOOP = Reply(554, "Error: too many hops, the message goes in circles", "5.4.6")

_OPEN_RELAY = (
    "a proxy on {} would be an open relay: whoever reaches it could send mail to anybody through it, as if it came "
    "from here. Listen on a loopback address such as 127.0.0.1, or say who may use it: relay_domains=['example.org'], "
    "relay_from=['192.0.2.0/24'], or allow_open_relay=True if the network keeps strangers away"
)


class ProxyChannel(SMTPChannel):
    """A client's session, in which the upstream answers whatever the proxy itself would not refuse."""

    smtp_server: PureProxy

    def __init__(self, server: PureProxy, *args: Any, **kwargs: Any) -> None:
        super().__init__(server, *args, **kwargs)
        self.relay = Relay(server.pool, GROWTH)

    def answer(self, event: Event) -> Reply | None:
        """Answer as usual if that is a refusal; else have the upstream answer, in a worker."""
        reply = super().answer(event)
        if reply is None or reply.is_negative:
            return reply
        ask = self._find_question(reply)
        return reply if ask is None else self.answer_later(ask)

    def _find_question(self, reply: Reply) -> Callable[[], Reply] | None:
        """Return what asks the upstream about the command to which this is the usual answer."""
        # Not the event that was to be answered: an overridden `smtp_VERB` may have put another one in its place.
        command = self.session.waiting
        if isinstance(command, Mail):
            return partial(self.ask_mail, Envelope(command.accepted_path.mailbox, command.parameters), reply)
        if isinstance(command, Rcpt):
            return partial(self.ask_rcpt, Recipient(command.accepted_path.mailbox, command.parameters))
        match command.stage if command else "":
            case "EHLO":
                return partial(self.ask_ehlo, reply)
            case "HELO" | "RSET" if self.in_transaction:
                return partial(self.ask_reset, reply)
        return None

    @property
    def in_transaction(self) -> bool:
        """Whether others wait for more of a transaction."""
        return self.relay.in_transaction

    # What blocks: in a worker.

    def ask_ehlo(self, reply: Reply) -> Reply:
        """Offer what the upstream offers; an answer of a subclass's own stays as it is."""
        self.reset()
        usual = self.session.state.settings.ehlo_replies[self.session.state.secure]
        offered = self.session.offer(offer(self.smtp_server.settings, self.relay.features(), GROWTH))
        return offered if reply == usual else reply

    def ask_reset(self, reply: Reply) -> Reply:
        """End the upstream's transaction."""
        self.reset()
        return reply

    def ask_mail(self, envelope: Envelope, reply: Reply) -> Reply:  # noqa: ARG002 - for those who don't ask
        """Begin a transaction with the upstream."""
        return self.relay.begin(envelope)

    def ask_rcpt(self, recipient: Recipient) -> Reply:
        """Ask the upstream about a recipient, if it may be relayed to."""
        return self.smtp_server.policy.check(self.peer, recipient.mailbox) or self.relay.add(recipient)

    def deliver_to(self, envelope: Envelope, content: RelayedContent) -> Reply:
        """Hand a message on."""
        return self.relay.deliver(envelope, content)

    def reset(self) -> None:
        """End all transactions of this session with others."""
        self.relay.reset()

    def abort(self) -> None:
        """End all that this session has to do with others, at once; from any thread."""
        self.relay.abort()

    def process(self, content: Content) -> Reply | None:
        """Hand the message on, unless it can't be accepted anyway."""
        if not content.reply.is_positive:
            return self.answer_later(partial(self.ask_reset, content.reply))
        return self.answer_later(partial(self._hand_on, content))

    def _hand_on(self, content: Content) -> Reply:
        delivery = Delivery(self, content)
        try:
            if 0 < self.smtp_server.max_received <= delivery.relayed.hops:
                return _LOOP
            if not self.smtp_server.has_hook:
                return delivery.hand_on()
            with self.smtp_server.delivering(delivery):
                reply = self.smtp_server.receive(self.peer, content)
            if reply is content.reply:  # nothing was returned, as in smtpd
                return delivery.reply or reply
            return reply
        finally:
            self.reset()

    def connection_lost(self) -> None:
        """Leave the upstream, too."""
        self.abort()
        super().connection_lost()


class Delivery:
    """A message on its way, which the `process_message` of a subclass may change."""

    def __init__(self, channel: ProxyChannel, content: Content) -> None:
        self._channel = channel
        self._content = content
        self._envelope = Envelope.of(content)
        self._header = x_peer(channel.peer)
        self.relayed = RelayedContent(content.data, self._header)
        #: What came of it: the first refusal, or else an acceptance; None: it was not handed on.
        self.reply: Reply | None = None

    def hand_on(self) -> Reply:
        """Hand it on as it came."""
        return self._channel.deliver_to(self._envelope, self.relayed)

    def hand_on_changed(self, mailfrom: str, rcpttos: Iterable[str], data: bytes | str) -> Reply:
        """Hand on what a subclass has made of it; what that has not changed is sent exactly as it came."""
        envelope, relayed = self._envelope.addressed(mailfrom, rcpttos), self.relayed
        if data != classic_data(self._content):
            envelope = envelope.without("SIZE")
            relayed = RelayedContent(_to_wire(data), self._header)
        reply = self._channel.deliver_to(envelope, relayed)
        if self.reply is None or self.reply.is_positive:
            self.reply = reply
        return reply


class PureProxy(SMTPServer):
    """An SMTP server that relays each message to the upstream, `remoteaddr`, and says what the upstream says.

    `localaddr` and `remoteaddr` are (host, port); a host that begins with a slash is the path of a Unix socket.
    What it offers to clients is what the upstream offers, whatever `enable_SMTPUTF8` says. Content passes as it is,
    apart from the header X-Peer, which is added with the client's address.

    - `upstream_tls` is "starttls" or "implicit" to encrypt, with the `upstream_ssl_context` or the system's CAs;
      nothing is ever sent in the clear then. `upstream_username` and `upstream_password` authenticate.
    - `upstream_timeout` is how many seconds the upstream may take for a reply; twice as many for that to the content.
    - `relay_domains` has domains of recipients, and `relay_from` networks of clients such as "192.0.2.0/24", for
      which it relays, and for no others. Without either it relays for everybody: it then has to listen on a
      loopback address, unless `allow_open_relay` is true.
    - `max_received` is how many relays a message may have passed, as its headers tell; 0: any number.

    A subclass may override `process_message`, which may block: see there.

    Raises OSError when it can't bind, ValueError for options that make no sense, and for an open relay.
    """

    channel_class: type[SMTPChannel] = ProxyChannel
    max_connections = MAX_CONNECTIONS
    timeout = IDLE_SECONDS

    def __init__(
        self,
        localaddr: Address,
        remoteaddr: Address,
        data_size_limit: int | None = DATA_SIZE_DEFAULT,
        map: dict[int, SMTPServer] | None = None,
        enable_SMTPUTF8: bool = False,
        decode_data: bool = False,
        *,
        upstream_tls: Literal["starttls", "implicit"] | None = None,
        upstream_ssl_context: ssl.SSLContext | None = None,
        upstream_username: str | None = None,
        upstream_password: str | None = None,
        upstream_timeout: float = 300.0,
        relay_domains: Iterable[str] | None = None,
        relay_from: Iterable[str] | None = None,
        allow_open_relay: bool = False,
        max_received: int = MAX_RECEIVED,
    ) -> None:
        if decode_data:
            msg = "decode_data makes text of the content, and a proxy passes on its octets: leave it out"
            raise ValueError(msg)
        check_limit("max_received", max_received)
        self.max_received = max_received
        #: For whom it relays.
        self.policy = RelayPolicy(relay_domains, relay_from)
        self._next_hop = NextHop(
            address=remoteaddr,
            tls=upstream_tls,
            ssl_context=upstream_ssl_context,
            username=upstream_username,
            password=upstream_password,
            timeout=upstream_timeout,
        )
        #: The connections to the upstream.
        self.pool = Pool(self._next_hop)
        self._here = threading.local()
        super().__init__(localaddr, remoteaddr, data_size_limit, map, enable_SMTPUTF8)
        if not (allow_open_relay or self.policy.is_restricted or is_loopback(self._bound_address)):
            self.close()
            raise ValueError(_OPEN_RELAY.format(self._bound_address[0]))

    def _make_settings(self) -> Settings:
        """Offer, to begin with, what needs no upstream."""
        return offer(super()._make_settings(), Features(), GROWTH)

    @property
    def has_hook(self) -> bool:
        """Whether somebody overrides `process_message`, who gets a copy of each message."""
        return getattr(self.process_message, "__func__", None) is not PureProxy.process_message

    @contextlib.contextmanager
    def delivering(self, delivery: Delivery) -> Iterator[None]:
        """Have `process_message`, which this thread calls meanwhile, be about this message."""
        self._here.delivery = delivery
        try:
            yield
        finally:
            self._here.delivery = None

    def process_message(
        self,
        peer: Address,
        mailfrom: str,
        rcpttos: list[str],
        data: Any,
        **kwargs: Any,  # noqa: ARG002
    ) -> str | Reply | None:
        """Relay a message, and return the upstream's reply to it; an override may call this, more than once, or not.

        Arguments that are not changed stand for what the client has sent, octet by octet. If the sender or a
        recipient is another one the upstream is asked again, and if it refuses one recipient then, the message is
        not relayed at all. An override that returns None leaves the answer to the upstream, if it was asked; the
        message is accepted if not.

        It is called in workers, for several clients at once, when the upstream has accepted the recipients.
        """
        return self._relay(peer, mailfrom, rcpttos, data)

    def _relay(self, peer: Address, mailfrom: str, rcpttos: list[str], data: bytes | str) -> Reply:
        """Relay the message that is being delivered, or else one that belongs to no session."""
        delivery: Delivery | None = getattr(self._here, "delivery", None)
        if delivery is not None:
            return delivery.hand_on_changed(mailfrom, rcpttos, data)
        pool = Pool(self._next_hop)
        try:
            envelope = Envelope("").addressed(mailfrom, rcpttos)
            return Relay(pool, GROWTH).deliver(envelope, RelayedContent(_to_wire(data), x_peer(peer)))
        finally:
            pool.close()

    def __init_subclass__(cls) -> None:
        """Refuse what smtpd would have called, and which can't be meant any more: the upstream is asked before."""
        super().__init_subclass__()
        if "_deliver" in vars(cls):
            msg = (
                f"{cls.__name__}._deliver would never be called: override process_message; TLS and AUTH are options, "
                "upstream_tls, upstream_username, upstream_password"
            )
            raise TypeError(msg)

    def _deliver(self, mailfrom: str, rcpttos: list[str], data: Any) -> dict[str, tuple[int, bytes]]:
        """Relay a message as smtpd's did, for who calls it in process_message; return who was refused: all, or nobody."""
        reply = self._relay(("127.0.0.1", 0), mailfrom, rcpttos, data)
        return {} if reply.is_positive else dict.fromkeys(rcpttos, (reply.code, reply.text.encode()))

    def stopped(self) -> None:
        """Leave the upstream: the server serves no longer."""
        self.pool.close()
        self.pool = Pool(self._next_hop)


def _to_wire(data: bytes | str) -> bytes:
    """Return content with the line ends that SMTP has."""
    octets = data.encode() if isinstance(data, str) else data
    lines = octets.replace(b"\r\n", b"\n").removesuffix(b"\n")
    return lines.replace(b"\n", b"\r\n") + b"\r\n" if octets else b""
