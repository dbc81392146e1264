"""MailmanProxy: hands mail for lists to GNU Mailman 3, and relays the rest to the upstream."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from pytest_smtpd.protocol.events import OK, Refusal
from pytest_smtpd.protocol.replies import Reply

from .envelope import DSN_PARAMETERS, Envelope, Recipient
from .next_hop import NextHop
from .proxy import GROWTH, ProxyChannel, PureProxy
from .relay import Pool, Relay

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_smtpd.network.connection import Address

    from .channel import SMTPChannel
    from .relayed import RelayedContent

#: Of how many messages it is known who has them already.
MAX_RECEIPTS = 1000


class Receipts:
    """Who has a message that others still lack: the client sends it again, and nobody is to get it twice."""

    def __init__(self) -> None:
        self._taken: OrderedDict[bytes, set[str]] = OrderedDict()
        self._changing = threading.Lock()

    @staticmethod
    def key(mailfrom: str, data: bytes) -> bytes:
        """Return what tells a message from others."""
        digest = hashlib.sha256(mailfrom.encode("utf-8", "surrogateescape"))
        digest.update(b"\0")
        digest.update(data)
        return digest.digest()

    def taken(self, key: bytes) -> set[str]:
        """Return who has the message."""
        with self._changing:
            return set(self._taken.get(key, ()))

    def keep(self, key: bytes, taken: set[str]) -> None:
        """Keep who has the message; nobody, if the client will not send it again."""
        with self._changing:
            self._taken.pop(key, None)
            if taken:
                self._taken[key] = taken
            while len(self._taken) > MAX_RECEIPTS:
                self._taken.popitem(last=False)


class MailmanChannel(ProxyChannel):
    """A client's session whose recipients are Mailman's or else the upstream's.

    The upstream hears of a transaction only with the first recipient that is not Mailman's: lists go on while it
    is away.
    """

    smtp_server: MailmanProxy

    def __init__(self, server: MailmanProxy, *args: Any, **kwargs: Any) -> None:
        super().__init__(server, *args, **kwargs)
        self.lists = Relay(server.lmtp_pool, GROWTH)
        self._envelope = Envelope("")
        #: Of which recipients of the transaction it is known whether they are Mailman's.
        self._known: dict[str, bool] = {}

    @property
    def in_transaction(self) -> bool:
        """Whether one of both waits for more of a transaction."""
        return self.lists.in_transaction or super().in_transaction

    def reset(self) -> None:
        """End both transactions."""
        self.lists.reset()
        super().reset()

    def abort(self) -> None:
        """End all, at once."""
        self.lists.abort()
        super().abort()

    def ask_mail(self, envelope: Envelope, reply: Reply) -> Reply:
        """Ask nobody yet."""
        self.reset()
        self._envelope = envelope
        self._known.clear()
        return reply

    def ask_rcpt(self, recipient: Recipient) -> Reply:
        """Ask Mailman about a recipient, and the upstream if it is not Mailman's."""
        try:
            reply = self._ask_mailman(recipient.mailbox)
            if reply is not None:
                self._for_mailman([recipient]).mail_command(self.smtp_server.lmtp_pool.features, GROWTH)
                return reply
        except Refusal as refusal:
            return refusal.reply
        refused = self.smtp_server.policy.check(self.peer, recipient.mailbox)
        if refused is None and not self.relay.in_transaction:
            begun = self.relay.begin(self._envelope)
            refused = None if begun.is_positive else begun
        return refused or self.relay.add(recipient)

    def _ask_mailman(self, mailbox: str) -> Reply | None:
        """Return Mailman's reply to its own recipient, None to any other; raises Refusal when that can't be told."""
        # Mailman's server takes no other addresses than ASCII ones.
        if not mailbox.isascii() or not self._may_be_list(mailbox):
            self._known[mailbox] = False
            return None
        reply = self._probe(mailbox)
        if reply.is_negative and self.smtp_server.is_list is not None:
            raise Refusal(reply)
        self._known[mailbox] = reply.is_positive
        return reply if reply.is_positive else None

    def _may_be_list(self, mailbox: str) -> bool:
        """Return what `is_list` tells; raises Refusal when it can't ask whom it asks."""
        is_list = self.smtp_server.is_list
        try:
            return is_list is None or is_list(mailbox)
        except OSError as error:
            raise Refusal(Reply(451, f"Error: there is no telling whose it is: {error}", "4.4.1")) from error

    def _probe(self, mailbox: str) -> Reply:
        """Return Mailman's positive or permanently negative reply to this recipient; raises Refusal for any other."""
        reply = OK if self.lists.in_transaction else self.lists.begin(Envelope(""))
        asked = reply.is_positive
        if asked:
            reply = self.lists.add(Recipient(mailbox))
        if reply.is_positive or (asked and reply.is_permanent):
            return reply
        raise Refusal(Reply(451, reply.text, "" if reply.is_permanent else reply.enhanced))

    def _for_mailman(self, recipients: list[Recipient]) -> Envelope:
        # A list's posts are sent anew: what was asked of delivery reports ends here (RFC 3461 5.2.7.3).
        return self._envelope.to(recipients).without(*DSN_PARAMETERS)

    def _is_mailmans(self, mailbox: str) -> bool:
        if mailbox not in self._known:  # who has overridden `process_message` has put it there
            self._ask_mailman(mailbox)
        return self._known[mailbox]

    def deliver_to(self, envelope: Envelope, content: RelayedContent) -> Reply:
        """Hand the message to Mailman, once for each list, and then to the upstream; see `MailmanProxy`."""
        self._envelope = envelope
        try:
            lists = [recipient for recipient in envelope.recipients if self._is_mailmans(recipient.mailbox)]
        except Refusal as refusal:
            return refusal.reply
        others = [recipient for recipient in envelope.recipients if recipient not in lists]
        destinations = [(self.lists, self._for_mailman([recipient])) for recipient in lists]
        destinations += [(self.relay, envelope.to(others))] if others or not lists else []
        return self._deliver_to_all(destinations, content)

    def _deliver_to_all(self, destinations: list[tuple[Relay, Envelope]], content: RelayedContent) -> Reply:
        receipts = self.smtp_server.receipts
        key = receipts.key(self._envelope.mailfrom, content.data)
        taken = receipts.taken(key)
        reply = OK
        for relay, envelope in destinations:
            lacking = [recipient for recipient in envelope.recipients if recipient.mailbox not in taken]
            if envelope.recipients and not lacking:
                continue
            reply = relay.deliver(envelope.to(lacking), content)
            if not reply.is_positive:
                break
            taken.update(recipient.mailbox for recipient in lacking)
        receipts.keep(key, taken if reply.is_negative and not reply.is_permanent else set())
        return reply


class MailmanProxy(PureProxy):
    """A PureProxy that hands mail for the lists of GNU Mailman 3 straight to it, over LMTP, and relays the rest.

    Mailman's LMTP server, on `lmtp`, is asked about each recipient: what it accepts is its, what it refuses for
    good is the upstream's; if it can't be asked the recipient is refused with 451, and nothing goes the wrong way.
    `is_list(address)` may tell instead, which may block, and is called for several clients at once: then Mailman gets
    what it returns true for, and nothing else. All other options are PureProxy's; `relay_domains` and `relay_from` are about the upstream's recipients.

    A message for several lists, or for lists and others, is handed on several times: to each list, then to the
    upstream. The first refusal ends that and is the answer, so that no message is lost without the client knowing.
    If it is a transient one, and the client sends the same message again, those who have it are left out.
    """

    channel_class: type[SMTPChannel] = MailmanChannel

    def __init__(
        self,
        localaddr: Address,
        remoteaddr: Address,
        *args: Any,
        lmtp: Address = ("127.0.0.1", 8024),
        is_list: Callable[[str], bool] | None = None,
        **options: Any,
    ) -> None:
        given: object = is_list
        if given is not None and not callable(given):
            msg = f"is_list is a function that tells of an address whether Mailman has it, not {given!r}"
            raise TypeError(msg)
        self.is_list = is_list
        #: Who has which message already.
        self.receipts = Receipts()
        self._lmtp = NextHop(address=lmtp, timeout=options.get("upstream_timeout", 300.0), lmtp=True)
        #: The connections to Mailman.
        self.lmtp_pool = Pool(self._lmtp)
        super().__init__(localaddr, remoteaddr, *args, **options)

    def stopped(self) -> None:
        """Leave Mailman, too."""
        super().stopped()
        self.lmtp_pool.close()
        self.lmtp_pool = Pool(self._lmtp)
