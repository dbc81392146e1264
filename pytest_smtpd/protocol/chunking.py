"""CHUNKING and BINARYMIME (RFC 3030): content in counted chunks."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from .content import Chunk, ContentStore
from .events import OK, SEND_HELO_FIRST, Command
from .mail import NEED_MAIL, NEED_RCPT, TOO_MUCH_MAIL_DATA, Content
from .state import Extension

if TYPE_CHECKING:
    from .events import Event
    from .replies import Reply
    from .state import State

CHUNKING = Extension(keyword="CHUNKING")
#: BODY=BINARYMIME is a value of the parameter that 8BITMIME brings.
BINARYMIME = Extension(keyword="BINARYMIME", needs="CHUNKING")

_ARGUMENT = r"(?ai)([0-9]{1,20})( +LAST)?"


class Bdat(Command):
    """BDAT (RFC 3030 2): so many octets follow the command line; the answer comes behind them.

    The octets of a chunk that can't be taken are received all the same, and dropped: they are no commands.
    """

    extension = "CHUNKING"
    carries_octets = True
    syntax = "BDAT chunk-size [LAST]"

    #: Whether it says how many octets follow.
    _is_announced = False

    def announce(self, state: State) -> bool:
        match = re.fullmatch(_ARGUMENT, self.argument)
        if match is None:
            return False
        self._is_announced = True
        size = int(match[1])
        transaction = state.transaction
        if transaction is None or not transaction.forward_paths:
            # Nothing is kept of these.
            state.receiving = Chunk(size, ContentStore(limit=1)), self
            return True
        if transaction.chunks is None:
            transaction.chunks = ContentStore(state.settings.data_size_limit)
        store = transaction.chunks
        question: Event = self
        if match[2]:
            question = Content.begin(state, store)
            question.command = self.said
        state.receiving = Chunk(size, store), question
        return True

    def examine(self, state: State) -> Reply:
        if not self._is_announced:
            return self._syntax_error(state)
        if state.helo is None:
            return SEND_HELO_FIRST
        if state.transaction is None:
            return NEED_MAIL
        if state.transaction.chunks is None:
            return NEED_RCPT
        if state.transaction.chunks.too_large:
            return TOO_MUCH_MAIL_DATA
        return OK

    def take(self, state: State, reply: Reply) -> None:
        # A refused chunk is the end of its transaction: what was pipelined behind is refused as well.
        if not reply.is_positive:
            state.transaction = None
