"""Methods that asyncore called and nothing calls here: overriding one is an error that says what to do instead.

They would be ignored without a word otherwise, and a server that seems to work lacks what they were to do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

#: What does the work of a server's methods.
NEVER_CALLED_OF_SERVERS = {
    "handle_accept": "`handle_accepted(conn, addr)` is called for each connection, and `channel_class` makes its channel",
    "handle_read": "`process_message` is called for each message",
    "handle_close": "`close` closes the server",
}
#: And of a channel's.
NEVER_CALLED_OF_CHANNELS = {
    "collect_incoming_data": "`data_size_limit` bounds content, which comes to `process_message`, or to "
    "`found_terminator` in `received_lines`",
    "handle_read": "`found_terminator` gets each line, `smtp_VERB` each command",
    "handle_write": "`push` sends replies",
    "handle_close": "`connection_lost` is called at the end of a connection; call its `super()`, too",
}


def refuse_overrides(cls: type, never_called: Mapping[str, str]) -> None:
    """Raise TypeError for a class with methods that asyncore would have called and nothing calls here."""
    for name, instead in never_called.items():
        if hasattr(cls, name):  # also from a mixin: no class here has it
            msg = f"{cls.__name__}.{name} would never be called: there is no asyncore here. Instead, {instead}"
            raise TypeError(msg)
