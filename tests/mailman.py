"""A real GNU Mailman 3: its servers of LMTP and REST, with everything of theirs in a directory of its own."""

from __future__ import annotations

import base64
import contextlib
import http.client
import os
import socket
import subprocess
import tempfile
import urllib.parse
from pathlib import Path
from typing import Self

from tools import find_tool, missing

#: What is delivered is not needed here: what Mailman accepts stays in its queues, for tests to look at.
CONFIGURATION = """
[mailman]
layout: here
site_owner: owner@site.example
[paths.here]
var_dir: {root}/var
bin_dir: {programs}
[database]
url: sqlite:///{root}/var/data/mailman.db
[webservice]
hostname: 127.0.0.1
port: {rest}
admin_user: restadmin
admin_pass: restpass
workers: 1
configuration: {root}/gunicorn.cfg
[mta]
incoming: mailman.mta.null.NullMTA
lmtp_host: 127.0.0.1
lmtp_port: {lmtp}
"""


class Mailman:
    """Mailman from `with` on, with a domain, lists.example, which is alias.example as well, and a list, ants.

    `lmtp` is where it takes mail, `rest` host and port of its REST server.
    """

    def __init__(self) -> None:
        self._runner = Path(find_tool("mailman")).with_name("runner")
        if not self._runner.exists():
            missing(f"there is no {self._runner}")
        self._directory = tempfile.TemporaryDirectory()
        self._root = Path(self._directory.name)
        with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as two:
            # Mailman tells nobody which ports it has got: these were free just now.
            self.lmtp: tuple[str, int] = one.getsockname()
            self._rest_address: tuple[str, int] = two.getsockname()
        self.rest = "{}:{}".format(*self._rest_address)
        ports = {"lmtp": self.lmtp[1], "rest": self._rest_address[1]}
        self._configuration = self._root / "mailman.cfg"
        self._configuration.write_text(CONFIGURATION.format(root=self._root, programs=self._runner.parent, **ports))
        (self._root / "gunicorn.cfg").write_text("[gunicorn]\ncontrol_socket_disable = true\n")
        self._runners: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, address: tuple[str, int]) -> None:
        """Start a server, and wait until it takes connections."""
        log = (self._root / f"{name}.log").open("ab")
        with log:
            runner = self._runners[name] = subprocess.Popen(  # noqa: S603 - as its manual says
                [self._runner, "-C", self._configuration, f"--runner={name}:0:1"],
                env={**os.environ, "HOME": str(self._root)},
                cwd=self._root,
                stdout=log,
                stderr=log,
            )
        while True:
            with contextlib.suppress(ConnectionRefusedError), socket.create_connection(address):
                return
            with contextlib.suppress(subprocess.TimeoutExpired):
                runner.wait(0.02)
                raise AssertionError((self._root / f"{name}.log").read_text())

    def stop(self, name: str) -> None:
        """Stop a server."""
        runner = self._runners.pop(name)
        runner.terminate()
        try:
            runner.wait(30)
        finally:
            runner.kill()
            runner.wait()

    def ask(self, path: str, **values: str) -> None:
        """Have the REST server make something."""
        headers = {
            "Authorization": f"Basic {base64.b64encode(b'restadmin:restpass').decode()}",
            "Content-Type": "application/x-www-form-urlencoded",
        }
        with contextlib.closing(http.client.HTTPConnection(self.rest, timeout=30)) as connection:
            connection.request("POST", f"/3.1/{path}", urllib.parse.urlencode(values), headers)
            response = connection.getresponse()
            assert response.status == http.HTTPStatus.CREATED, response.read()

    def take_queue(self, name: str) -> list[bytes]:
        """Return what is in a queue, pickled with what Mailman has noted about it, and empty it."""
        found = []
        for path in sorted((self._root / "var" / "queue" / name).glob("*.pck")):
            found.append(path.read_bytes())
            path.unlink()
        return found

    def __enter__(self) -> Self:
        try:
            # One after the other: both make directories and tables.
            self.start("lmtp", self.lmtp)
            self.start("rest", self._rest_address)
            self.ask("domains", mail_host="lists.example", alias_domain="alias.example")
            self.ask("lists", fqdn_listname="ants@lists.example")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        for name in list(self._runners):
            self.stop(name)
        self._directory.cleanup()
