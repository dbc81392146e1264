"""What subclasses override: looked up once a class; and what would never be called, which is an error."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

# asyncore called these. Ignored without a word, they would leave a server that seems to work and doesn't.
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


def refuse_result(verb: str, result: object, pushed: list[str] | None) -> None:
    """Raise TypeError for what a method has returned that has pushed nothing: the client would wait for ever."""
    if result is not None and pushed == []:
        msg = f'smtp_{verb} pushes its reply, such as self.push("550 No"), and returns None, not {result!r}'
        raise TypeError(msg)


class ChannelType(type):
    """The type of channel classes, which know what they override.

    It is looked up when a class is made or a method of it replaced, as tests do with monkeypatch; never by text
    from the network.
    """

    #: Whether a subclass overrides anything that answers.
    _has_overrides: bool
    #: The methods of subclasses that answer verbs, by verb.
    _answering: dict[str, Callable[[Any, str | None], object]]
    #: Whether a subclass has a `push` through which all replies go, and a `found_terminator` for all lines.
    _sees_replies: bool
    _sees_lines: bool
    #: The methods that are no overrides, by name.
    _usual: dict[str, object]

    def remember_usual(cls) -> None:
        """Take the methods that the class has now for those that subclasses override."""
        cls._usual = {name: getattr(cls, name) for name in dir(cls) if _is_overridable(name)}
        cls.look_up()

    def look_up(cls) -> None:
        """Find the overrides in this class and its subclasses."""
        found = {name: getattr(cls, name) for name in dir(cls) if _is_overridable(name)}
        overrides = {name: method for name, method in found.items() if method is not cls._usual.get(name)}
        cls._sees_replies, cls._sees_lines = "push" in overrides, "found_terminator" in overrides
        commands = {name.removeprefix("smtp_"): method for name, method in overrides.items() if callable(method)}
        cls._answering = {verb: method for verb, method in commands.items() if verb.isupper()}
        cls._has_overrides = bool(overrides)
        subclasses: list[Any] = cls.__subclasses__()
        for subclass in subclasses:
            subclass.look_up()

    def __setattr__(cls, name: str, value: object) -> None:
        super().__setattr__(name, value)
        if _is_overridable(name):
            cls.look_up()

    def __delattr__(cls, name: str) -> None:
        super().__delattr__(name)
        if _is_overridable(name):
            cls.look_up()


def _is_overridable(name: str) -> bool:
    return name.startswith("smtp_") or name in {"push", "found_terminator"}
