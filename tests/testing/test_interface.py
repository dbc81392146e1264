"""What channels need of their server, which type checkers hold and nothing else imports."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_smtpd import RecordingServer, smtpd
from pytest_smtpd.smtpd.interface import Server
from pytest_smtpd.testing.interface import Recorder

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.mark.parametrize(
    ("make", "interfaces"),
    [
        pytest.param(lambda: smtpd.SMTPServer(("127.0.0.1", 0), None, map={}), [Server], id="SMTPServer"),
        pytest.param(RecordingServer, [Server, Recorder], id="RecordingServer"),
    ],
)
def test_servers_have_what_channels_need(make: Callable[[], smtpd.SMTPServer], interfaces: list[type]) -> None:
    """A server has each attribute and method that its channels' interface names."""
    names = {name for each in interfaces for name in (*each.__annotations__, *vars(each)) if not name.startswith("_")}
    assert {"settings", "is_full", "receive"} < names
    server = make()
    assert names <= set(dir(server))
    server.close()
