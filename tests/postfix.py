"""A real Postfix, with a configuration, a queue and a log of its own."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Self

from tools import find_tool, missing

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Everything that is not said otherwise is relayed to `relayhost`; what is deferred is tried again after 2 seconds.
SETTINGS = {
    "compatibility_level": "3.6",
    "mail_owner": "postfix",
    "setgid_group": "postdrop",
    "inet_interfaces": "127.0.0.1",
    "inet_protocols": "ipv4",
    "mynetworks": "127.0.0.0/8",
    "myhostname": "postfix.example",
    "mydestination": "",
    "local_transport": "error:there is nobody here",
    "alias_maps": "",
    "alias_database": "",
    "disable_dns_lookups": "yes",
    "smtp_host_lookup": "native",
    "minimal_backoff_time": "2s",
    "maximal_backoff_time": "4s",
    "queue_run_delay": "2s",
}

#: The services that mail needs, and the port of the first.
MASTER = """\
127.0.0.1:{port} inet n - n - - smtpd
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
smtp unix - - n - - smtp
relay unix - - n - - smtp
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
"""


class Postfix:
    """Postfix on a free port, from `with` on; `settings` go into its main.cf. Needs root."""

    def __init__(self, settings: Mapping[str, str]) -> None:
        self._program = find_tool("postfix")
        if os.geteuid() != 0:
            missing("Postfix can be started by root alone")
        self._directory = tempfile.TemporaryDirectory()
        root = Path(self._directory.name)
        root.chmod(0o755)
        self.log = root / "maillog"
        self._etc, queue, data = root / "etc", root / "queue", root / "data"
        for directory in (self._etc, queue, data):
            directory.mkdir()
        shutil.chown(data, "postfix")
        # Postfix tells nobody which port it has got: this one was free just now.
        with socket.create_server(("127.0.0.1", 0)) as reserved:
            self.address: tuple[str, int] = reserved.getsockname()
        places = {"queue_directory": queue, "data_directory": data, "maillog_file": self.log}
        lines = {**SETTINGS, **places, "maillog_file_prefixes": root, **settings}
        (self._etc / "main.cf").write_text("".join(f"{name} = {value}\n" for name, value in lines.items()))
        (self._etc / "master.cf").write_text(MASTER.format(port=self.address[1]))

    def _run(self, command: str) -> None:
        ran = subprocess.run(  # noqa: S603 - as its manual says
            [self._program, "-c", str(self._etc), command],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=60,
            check=False,
        )
        assert ran.returncode == 0, ran.stdout.decode() + (self.log.read_text() if self.log.exists() else "")

    def __enter__(self) -> Self:
        self._run("start")
        return self

    def __exit__(self, *exception: object) -> None:
        self._run("abort")
        self._directory.cleanup()
