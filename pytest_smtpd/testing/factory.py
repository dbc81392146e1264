"""ServerFactory: makes servers for a test, and stops them all."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, overload

from .recording import RecordingServer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Unpack

    from .keywords import Options

P = ParamSpec("P")
S = TypeVar("S", bound=RecordingServer)


class ServerFactory:
    """What the fixture `make_smtpd_server` returns: a function that starts a server, until the test ends.

        server = make_smtpd_server(require_auth=True)
        picky = make_smtpd_server(PickyServer, hostname="mx.example.org")

    `defaults` are options of servers for which they are not given.
    """

    def __init__(self, defaults: Mapping[str, Any] | None = None) -> None:
        self._defaults = defaults or {}
        self._stack = ExitStack()
        #: The servers that were started.
        self.servers: list[RecordingServer] = []

    @overload
    def __call__(self, *, host: str = ..., port: int = ..., **options: Unpack[Options]) -> RecordingServer: ...
    @overload
    def __call__(self, server_class: Callable[P, S], /, *args: P.args, **options: P.kwargs) -> S: ...
    def __call__(  # type: ignore[misc]  # mypy takes the first signature's options for positional ones
        self, server_class: Any = RecordingServer, /, *args: Any, **options: Any
    ) -> RecordingServer:
        """Start a server of this class, RecordingServer or a subclass, with these options."""
        __tracebackhide__ = True
        _check_class(server_class, args)
        if getattr(server_class, "__init__", None) is RecordingServer.__init__:  # and takes all of its options
            options = {**self._defaults, **options}
        server: RecordingServer = self._stack.enter_context(server_class(*args, **options))
        self.servers.append(server)
        return server

    def stop(self) -> None:
        """Stop all servers; raises what their hooks have raised."""
        self._stack.close()


def _check_class(server_class: object, args: tuple[object, ...]) -> None:
    __tracebackhide__ = True
    if not callable(server_class):
        msg = f"options go by name, not {(server_class, *args)}"
        raise TypeError(msg)
    if isinstance(server_class, type) and not issubclass(server_class, RecordingServer):
        msg = f"make_smtpd_server takes subclasses of RecordingServer, and {server_class.__name__} is none"
        raise TypeError(msg)
