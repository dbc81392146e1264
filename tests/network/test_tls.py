"""TLS without sockets against clients in memory, and with sockets against real ones."""

from __future__ import annotations

import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_smtpd.network.tls import (
    CERTIFICATES,
    TLS,
    TLSInfo,
    cafile,
    certfile,
    client_context,
    server_context,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]
FATAL = 2
LARGE = bytes(range(256)) * 4096

#: For tests that need many connections.
_CONTEXT = server_context()
_CLIENT_CONTEXT = client_context()


def missing(reason: str) -> NoReturn:
    """Skip a test for want of something; fail instead where everything has to be there."""
    if "PYTEST_SMTPD_REQUIRE_TOOLS" in os.environ:
        pytest.fail(reason)
    pytest.skip(reason)


class MemoryClient:
    """The client's side of a TLS connection, as an ssl object in memory."""

    def __init__(self, context: ssl.SSLContext, server_name: str | None = "localhost") -> None:
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self.ssl = context.wrap_bio(self._incoming, self._outgoing, server_hostname=server_name)
        self.established = False
        self.ended = False
        self.receive(b"")

    def receive(self, data: bytes) -> bytes:
        """Take ciphertext and return plaintext."""
        self._incoming.write(data)
        plaintext = []
        try:
            if not self.established:
                self.ssl.do_handshake()
                self.established = True
            while chunk := self.ssl.read(100_000):
                plaintext.append(chunk)
            self.ended = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self.ended = True
        return b"".join(plaintext)

    def send(self, data: bytes) -> None:
        """Encrypt plaintext."""
        while data:
            data = data[self.ssl.write(data) :]

    def close(self) -> None:
        """Send a close_notify."""
        with pytest.raises(ssl.SSLWantReadError):
            self.ssl.unwrap()

    def data_to_send(self) -> bytes:
        """Return the ciphertext since the last call."""
        return self._outgoing.read()


def whole(data: bytes) -> list[bytes]:
    """Leave data as it is."""
    return [data] if data else []


def octets(data: bytes) -> list[bytes]:
    """Cut data into octets."""
    return [bytes([octet]) for octet in data]


def pieces_of(size: int) -> Callable[[bytes], list[bytes]]:
    """Return a function that cuts data into pieces of a size."""
    return lambda data: [data[start : start + size] for start in range(0, len(data), size)]


def exchange(
    tls: TLS, client: MemoryClient, cut: Callable[[bytes], list[bytes]] = whole, *, echo: bool = False
) -> tuple[bytes, bytes]:
    """Carry data back and forth, cut like this, until there is none; return the plaintext server and client got."""
    to_server, to_client = [], []
    while True:
        sent = client.data_to_send()
        for piece in cut(sent):
            plaintext = tls.receive(piece)
            to_server.append(plaintext)
            if echo and plaintext:
                tls.send(plaintext)
        answered = tls.data_to_send()
        to_client += [client.receive(piece) for piece in cut(answered)]
        if not sent and not answered:
            return b"".join(to_server), b"".join(to_client)


def limited(context: ssl.SSLContext, version: ssl.TLSVersion) -> ssl.SSLContext:
    """Have a context speak this version and no other."""
    context.minimum_version = context.maximum_version = version
    return context


def identified_context(certificate: str = "client") -> ssl.SSLContext:
    """Return the context of a client that has this certificate to show."""
    context = client_context()
    context.load_cert_chain(certfile(certificate))
    return context


def handshaken(
    server: ssl.SSLContext | None = None, client: ssl.SSLContext | None = None, name: str | None = "localhost"
) -> tuple[TLS, MemoryClient]:
    """Return a server and a client that have shaken hands."""
    sides = TLS(server or server_context()), MemoryClient(client or client_context(), name)
    exchange(*sides)
    return sides


def shown(certificate: str, ca: str | None = None) -> dict[str, Any]:
    """Return what a client that ignores host names sees of a server's certificate."""
    context = ssl.create_default_context(cafile=ca or cafile())
    context.check_hostname = False
    _, client = handshaken(server_context(certificate), context)
    found = client.ssl.getpeercert()
    assert found
    return found


# Data in, data out.


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("cut", [whole, octets, pieces_of(7), pieces_of(16_384)])
@pytest.mark.parametrize("text", [b"EHLO me\r\n", b"x" * 40_000], ids=["small", "of several records"])
def test_echo(version: ssl.TLSVersion, cut: Callable[[bytes], list[bytes]], text: bytes) -> None:
    """However the network cuts the data, what was sent arrives, in both directions."""
    tls, client = TLS(server_context(maximum_version=version)), MemoryClient(client_context())
    exchange(tls, client, cut)
    assert tls.established
    client.send(text)
    assert exchange(tls, client, cut, echo=True) == (text, text)


@pytest.mark.parametrize("cut", [whole, pieces_of(1000), pieces_of(100_000)])
def test_large_echo(cut: Callable[[bytes], list[bytes]]) -> None:
    """A mebibyte arrives as it was sent, in both directions."""
    tls, client = handshaken()
    client.send(LARGE)
    assert exchange(tls, client, cut, echo=True) == (LARGE, LARGE)


@settings(deadline=None)
@given(data=st.data(), texts=st.lists(st.binary(min_size=1, max_size=200), max_size=4))
def test_any_chunks(data: st.DataObject, texts: list[bytes]) -> None:
    """The plaintext is the same for every way to cut the ciphertext, and at no time longer than it."""
    tls, client = TLS(_CONTEXT), MemoryClient(_CLIENT_CONTEXT)
    exchange(tls, client, data.draw(st.integers(1, 400).map(pieces_of)))
    for text in texts:
        client.send(text)
    ciphertext = client.data_to_send()
    cuts = sorted(data.draw(st.sets(st.integers(0, len(ciphertext)), max_size=8)) | {0, len(ciphertext)})
    came, plaintext = 0, b""
    for start, stop in pairwise(cuts):
        came += stop - start
        plaintext += tls.receive(ciphertext[start:stop])
        assert len(plaintext) <= came
    assert plaintext == b"".join(texts)


def test_plaintext_behind_the_handshake() -> None:
    """Plaintext that comes in one piece with the end of the handshake is returned."""
    tls, client = TLS(server_context()), MemoryClient(client_context())
    tls.receive(client.data_to_send())
    client.receive(tls.data_to_send())
    client.send(b"EHLO me\r\n")
    assert not tls.established
    assert tls.receive(client.data_to_send()) == b"EHLO me\r\n"
    assert tls.established


def test_nothing_to_send_follows_the_handshake() -> None:
    """The server says nothing behind the handshake: a client that has gone again would answer with a reset."""
    tls, client = TLS(server_context()), MemoryClient(client_context())
    tls.receive(client.data_to_send())
    client.receive(tls.data_to_send())
    tls.receive(client.data_to_send())
    assert tls.established
    assert tls.data_to_send() == b""


def test_sending_nothing() -> None:
    """To send no plaintext makes no record."""
    tls, _ = handshaken()
    tls.send(b"")
    assert tls.data_to_send() == b""


def test_sending_too_early() -> None:
    """Nothing can be sent before the handshake is done."""
    with pytest.raises(ssl.SSLError, match="the handshake is not done"):
        TLS(server_context()).send(b"220 hello\r\n")


# What a handshake came to.


@pytest.mark.parametrize("version", VERSIONS)
def test_server_with_a_maximum_version(version: ssl.TLSVersion) -> None:
    """A server speaks no later version of TLS than it is told to."""
    tls, client = handshaken(server_context(maximum_version=version))
    assert tls.info.version == client.ssl.version() == version.name.replace("_", ".")


@pytest.mark.parametrize("version", VERSIONS)
def test_client_of_one_version(version: ssl.TLSVersion) -> None:
    """A server speaks TLS 1.2 with clients that have nothing later, and 1.3 with all others."""
    tls, client = handshaken(client=limited(client_context(), version))
    assert tls.info.version == client.ssl.version() == version.name.replace("_", ".")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_1, ssl.TLSVersion.MAXIMUM_SUPPORTED])
def test_other_maximum_versions(version: ssl.TLSVersion) -> None:
    """There are two versions to choose from."""
    with pytest.raises(ValueError, match=r"maximum_version is .*, not <TLSVersion\."):
        server_context(maximum_version=version)


def test_no_common_version() -> None:
    """A client that wants TLS 1.3 of a server that has it not is told so by an alert."""
    tls = TLS(server_context(maximum_version=ssl.TLSVersion.TLSv1_2))
    client = MemoryClient(limited(client_context(), ssl.TLSVersion.TLSv1_3))
    with pytest.raises(ssl.SSLError, match="UNSUPPORTED_PROTOCOL"):
        tls.receive(client.data_to_send())
    with pytest.raises(ssl.SSLError, match=r"(?i)alert.protocol.version"):
        client.receive(tls.data_to_send())


@pytest.mark.parametrize("version", VERSIONS)
def test_cipher(version: ssl.TLSVersion) -> None:
    """The cipher is the one that the client sees."""
    tls, client = handshaken(server_context(maximum_version=version))
    cipher = client.ssl.cipher()
    assert cipher
    assert tls.info.cipher == cipher[0]


@pytest.mark.parametrize("name", ["localhost", "mail.example.org", "xn--bcher-kva.example", None])
def test_server_name(name: str | None) -> None:
    """The server knows by what name the client asked for it, if by any."""
    context = client_context()
    context.check_hostname = False
    assert handshaken(client=context, name=name)[0].info.server_name == name


def test_server_name_of_a_context_of_ones_own() -> None:
    """A context that was made elsewhere serves as well; the server name is not known then."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certfile())
    info = handshaken(context)[0].info
    assert (info.version, info.server_name) == ("TLSv1.3", None)


def test_callback_of_ones_own() -> None:
    """The callback for server names does no harm to connections that are not made by `TLS`."""
    context = server_context()
    context.sslobject_class = ssl.SSLObject
    assert handshaken(context)[0].info.server_name is None


def test_no_info_before_the_handshake() -> None:
    """There is nothing to know before the handshake is done."""
    tls = TLS(server_context())
    with pytest.raises(ValueError, match="handshake is not done"):
        _ = tls.info


def test_info_is_a_value() -> None:
    """What is known of a handshake compares as a value and can be a key."""
    info = TLSInfo("TLSv1.3", "TLS_AES_256_GCM_SHA384", "localhost", {"serialNumber": "01"})
    assert info == TLSInfo("TLSv1.3", "TLS_AES_256_GCM_SHA384", "localhost", {"serialNumber": "01"})
    assert {info: "a key"}[info] == "a key"


# The end.


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("cut", [whole, octets])
def test_client_closes(version: ssl.TLSVersion, cut: Callable[[bytes], list[bytes]]) -> None:
    """A close_notify ends what the client says, behind all that it said before."""
    tls, client = handshaken(server_context(maximum_version=version))
    client.send(b"QUIT\r\n")
    client.close()
    assert exchange(tls, client, cut)[0] == b"QUIT\r\n"
    assert tls.ended
    assert tls.error is None


def test_nothing_counts_behind_the_end() -> None:
    """What follows the client's close_notify, TLS or not, is ignored."""
    tls, client = handshaken()
    client.close()
    assert tls.receive(client.data_to_send() + b"junk") == b""
    assert tls.receive(b"EHLO me\r\n") == b""
    assert tls.error is None


@pytest.mark.parametrize("version", VERSIONS)
def test_server_closes(version: ssl.TLSVersion) -> None:
    """The server's close_notify ends what the server says, once, and not what the client says."""
    tls, client = handshaken(server_context(maximum_version=version))
    tls.send(b"221 bye\r\n")
    tls.close()
    tls.close()
    client.send(b"late\r\n")
    assert exchange(tls, client) == (b"late\r\n", b"221 bye\r\n")
    assert client.ended
    assert not tls.ended
    with pytest.raises(ssl.SSLError, match="it is closed"):
        tls.send(b"250 too late\r\n")


@pytest.mark.parametrize("version", VERSIONS)
def test_both_close(version: ssl.TLSVersion) -> None:
    """A client may answer the server's close_notify with its own, and so may the server the client's."""
    tls, client = handshaken(server_context(maximum_version=version))
    tls.close()
    client.receive(tls.data_to_send())
    client.ssl.unwrap()
    tls.receive(client.data_to_send())
    assert tls.ended

    tls, client = handshaken(server_context(maximum_version=version))
    client.close()
    tls.receive(client.data_to_send())
    tls.close()
    client.receive(tls.data_to_send())
    assert client.ended


def test_server_closes_within_a_record() -> None:
    """A record of which only a part has come yet is no obstacle to closing, and is returned once it is whole."""
    tls, client = handshaken()
    client.send(b"MAIL FROM:<>\r\n")
    ciphertext = client.data_to_send()
    assert tls.receive(ciphertext[:20]) == b""
    tls.close()
    client.receive(tls.data_to_send())
    assert client.ended
    assert tls.receive(ciphertext[20:]) == b"MAIL FROM:<>\r\n"


def test_close_before_the_handshake() -> None:
    """Where no hands were shaken there is nothing to close."""
    tls = TLS(server_context())
    tls.close()
    assert tls.data_to_send() == b""


def test_truncated() -> None:
    """Data that stops without a close_notify has no end; an incomplete record is never returned."""
    tls, client = handshaken()
    client.send(b"MAIL FROM:<>\r\n")
    client.send(b"RCPT TO:<a@example.org>\r\n")
    assert tls.receive(client.data_to_send()[:-1]) == b"MAIL FROM:<>\r\n"
    assert not tls.ended
    assert tls.error is None


def test_close_notify_within_the_handshake() -> None:
    """A client that ends the connection in the middle of the handshake has ended it, and no hands are shaken."""
    tls = TLS(server_context(maximum_version=ssl.TLSVersion.TLSv1_2))
    client = MemoryClient(client_context())
    tls.receive(client.data_to_send())
    assert tls.receive(bytes.fromhex("15 0303 0002 01 00")) == b""
    assert tls.ended
    assert not tls.established


# What is no TLS, or no good.


@pytest.mark.parametrize("cut", [whole, octets])
@pytest.mark.parametrize("text", [b"EHLO localhost\r\n", b"GET / HTTP/1.1\r\n\r\n", b"\0" * 64, b"\xff" * 64])
def test_no_tls(text: bytes, cut: Callable[[bytes], list[bytes]]) -> None:
    """What is no TLS is an error, and remains one."""
    tls = TLS(server_context())
    with pytest.raises(ssl.SSLError) as first:  # noqa: PT012
        for piece in cut(text):
            assert tls.receive(piece) == b""
    assert tls.error is first.value
    assert not tls.established
    with pytest.raises(ssl.SSLError) as second:
        tls.receive(b"")
    assert second.value is first.value
    with pytest.raises(ssl.SSLError):
        tls.send(b"220 hello\r\n")
    tls.close()


@pytest.mark.parametrize(
    ("record", "alert"),
    [
        pytest.param("16 0301 0005 68656c6c6f", "unexpected_message", id="a message of no known type"),
        pytest.param("17 0303 0005 68656c6c6f", "unexpected_message", id="data before the handshake"),
        pytest.param("16 0301 ffff 00000000", "record_overflow", id="a record too large"),
        pytest.param("16 0301 0004 01 ffffff", "illegal_parameter", id="a ClientHello of 16 MiB"),
        pytest.param("16 0301 0006 01 000002 0303", "decode_error", id="a ClientHello that stops"),
    ],
)
def test_alert(record: str, alert: str) -> None:
    """A record that can't be right is answered with a fatal alert that says why (RFC 8446 6.2)."""
    descriptions = {"unexpected_message": 10, "record_overflow": 22, "illegal_parameter": 47, "decode_error": 50}
    tls = TLS(server_context())
    with pytest.raises(ssl.SSLError):
        tls.receive(bytes.fromhex(record))
    kind, _, _, *_, level, description = tls.data_to_send()
    assert (kind, level, description) == (21, FATAL, descriptions[alert])


@pytest.mark.parametrize("version", VERSIONS)
def test_tampering(version: ssl.TLSVersion) -> None:
    """A record that was changed on its way is an error, of which the client is told by an alert."""
    tls, client = handshaken(server_context(maximum_version=version))
    client.send(b"MAIL FROM:<ada@example.org>\r\n")
    ciphertext = client.data_to_send()
    with pytest.raises(ssl.SSLError, match="BAD_RECORD_MAC"):
        tls.receive(ciphertext[:-1] + bytes([ciphertext[-1] ^ 1]))
    tls.close()
    with pytest.raises(ssl.SSLError, match=r"(?i)alert.bad.record.mac"):
        client.receive(tls.data_to_send())


@pytest.mark.parametrize("cut", [whole, octets])
def test_plaintext_before_an_error(cut: Callable[[bytes], list[bytes]]) -> None:
    """Plaintext that came in front of a bad record is not lost; the error is there, and raised by the next call."""
    tls, client = handshaken()
    client.send(b"MAIL FROM:<>\r\n")
    good = client.data_to_send()
    plaintext = b""
    with pytest.raises(ssl.SSLError) as raised:  # noqa: PT012
        for piece in [*cut(good + b"EHLO in the clear\r\n"), b""]:
            plaintext += tls.receive(piece)
    assert plaintext == b"MAIL FROM:<>\r\n"
    assert tls.error is raised.value
    assert tls.data_to_send()


@settings(deadline=None)
@given(data=st.data())
def test_damaged_handshakes(data: st.DataObject) -> None:
    """A handshake with octets changed anywhere succeeds or fails with ssl.SSLError, and nothing else happens."""
    tls, client = TLS(_CONTEXT), MemoryClient(_CLIENT_CONTEXT, None)
    flight = bytearray(client.data_to_send())
    for place in data.draw(st.sets(st.integers(0, len(flight) - 1), max_size=4)):
        flight[place] = data.draw(st.integers(0, 255))
    try:
        assert tls.receive(bytes(flight)) == b""
    except ssl.SSLError as error:
        assert tls.error is error  # noqa: PT017
    assert not tls.established


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_anything(data: bytes) -> None:
    """Octets that are no handshake bring no plaintext and no exception but ssl.SSLError."""
    tls = TLS(_CONTEXT)
    try:
        assert tls.receive(data) == b""
    except ssl.SSLError as error:
        assert tls.error is error  # noqa: PT017
    assert not tls.established


def test_server_name_that_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server name that is not ASCII ends the handshake; ssl itself tells sys.unraisablehook."""
    told: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: told.append(unraisable.exc_type))
    tls, client = TLS(server_context()), MemoryClient(client_context())
    with pytest.raises(ssl.SSLError):
        tls.receive(client.data_to_send().replace(b"localhost", b"local\xffost"))
    assert told == [UnicodeDecodeError]
    assert tls.data_to_send()[-2] == FATAL


# Certificates of servers.


def test_the_first_is_good() -> None:
    """The first of the bundled certificates is the good one, and the one that is shown by default."""
    assert CERTIFICATES[0] == "localhost"
    assert Path(certfile()).read_bytes() == Path(certfile("localhost")).read_bytes()
    assert handshaken()[0].established


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "::1"])
@pytest.mark.parametrize("version", VERSIONS)
def test_good_certificate(name: str, version: ssl.TLSVersion) -> None:
    """Clients that trust the bundled CA find the server under each of the loopback's names, even strict ones."""
    context = limited(ssl.create_default_context(cafile=cafile()), version)
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    assert context.check_hostname
    assert handshaken(client=context, name=name)[0].established


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("certificate", "name", "code", "message"),
    [
        ("expired", "localhost", 10, "certificate has expired"),
        ("not-yet-valid", "localhost", 9, "certificate is not yet valid"),
        ("wrong-host", "localhost", 62, "Hostname mismatch, certificate is not valid for 'localhost'."),
        ("wrong-host", "127.0.0.1", 64, "IP address mismatch, certificate is not valid for '127.0.0.1'."),
        ("self-signed", "localhost", 18, "self[- ]signed certificate"),
    ],
)
def test_bad_certificate(version: ssl.TLSVersion, certificate: str, name: str, code: int, message: str) -> None:
    """Clients refuse a bad certificate for the reason that it is made for, and the server hears of it."""
    tls = TLS(server_context(certificate, maximum_version=version))
    client = MemoryClient(client_context(), name)
    tls.receive(client.data_to_send())
    with pytest.raises(ssl.SSLCertVerificationError) as raised:
        client.receive(tls.data_to_send())
    assert raised.value.verify_code == code
    assert re.fullmatch(message, raised.value.verify_message)
    with pytest.raises(ssl.SSLError, match=r"(?i)alert"):
        tls.receive(client.data_to_send())
    assert not tls.established


@pytest.mark.parametrize("certificate", CERTIFICATES)
def test_nothing_else_is_wrong(certificate: str) -> None:
    """A client that verifies nothing shakes hands with any of the certificates."""
    context = client_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    assert handshaken(server_context(certificate), context)[0].established


def test_untrusted() -> None:
    """Clients that don't trust the bundled CA refuse the good certificate too."""
    tls, client = TLS(server_context()), MemoryClient(ssl.create_default_context())
    tls.receive(client.data_to_send())
    with pytest.raises(ssl.SSLCertVerificationError, match="unable to get local issuer certificate"):
        client.receive(tls.data_to_send())


def test_good_certificates_name() -> None:
    """The good certificate is for the loopback's names and for no others."""
    assert shown("localhost")["subjectAltName"] == (
        ("DNS", "localhost"),
        ("IP Address", "127.0.0.1"),
        ("IP Address", "0:0:0:0:0:0:0:1"),
    )


@pytest.mark.parametrize("name", ["client.pem", "localhost.pem", "../tls", "", "ca"])
def test_unknown_certificate(name: str) -> None:
    """There are no other certificates than those with a name."""
    with pytest.raises(ValueError, match="there are localhost, expired, not-yet-valid, wrong-host, self-signed and"):
        server_context(name)


# Certificates of clients.


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("asked", ["optional", "required"])
def test_client_certificate(version: ssl.TLSVersion, asked: Literal["optional", "required"]) -> None:
    """A server that asks for certificates knows who the client is."""
    tls, _ = handshaken(server_context(client_certificates=asked, maximum_version=version), identified_context())
    certificate = tls.info.peer_certificate
    assert certificate
    assert (("commonName", "client"),) in certificate["subject"]
    assert certificate["subjectAltName"] == (("email", "client@example.org"),)


@pytest.mark.parametrize("version", VERSIONS)
def test_strict_client_certificate(version: ssl.TLSVersion) -> None:
    """The client's certificate is as good to those who verify strictly."""
    context = server_context(client_certificates="required", maximum_version=version)
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    assert handshaken(context, identified_context())[0].info.peer_certificate


def test_client_certificate_unasked() -> None:
    """A server that doesn't ask gets no certificate."""
    assert handshaken(client=identified_context())[0].info.peer_certificate is None


def test_optional_client_certificate() -> None:
    """A client need not have a certificate where it is optional."""
    tls, _ = handshaken(server_context(client_certificates="optional"))
    assert tls.established
    assert tls.info.peer_certificate is None


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("asked", "certificate", "ca", "reason"),
    [
        ("required", None, None, "PEER_DID_NOT_RETURN_A_CERTIFICATE"),
        ("required", "self-signed", None, "self[- ]signed certificate"),
        ("optional", "self-signed", None, "self[- ]signed certificate"),
        ("required", "localhost", None, "(unsupported|unsuitable) certificate purpose"),
        ("required", "client", "self-signed", "self[- ]signed certificate in certificate chain"),
    ],
)
def test_bad_client_certificate(
    version: ssl.TLSVersion,
    asked: Literal["optional", "required"],
    certificate: str | None,
    ca: str | None,
    reason: str,
) -> None:
    """A client without a good certificate is refused and told so by an alert; by TLS 1.3 after its handshake."""
    client_cafile = certfile(ca) if ca else None
    context = server_context(client_certificates=asked, client_cafile=client_cafile, maximum_version=version)
    tls = TLS(context)
    client = MemoryClient(identified_context(certificate) if certificate else client_context())
    with pytest.raises(ssl.SSLError, match=reason):
        exchange(tls, client)
    assert not tls.established
    assert client.established is (version is ssl.TLSVersion.TLSv1_3)
    with pytest.raises(ssl.SSLError, match=r"(?i)alert"):
        client.receive(tls.data_to_send())


def test_unknown_demand_for_client_certificates() -> None:
    """Client certificates are optional or required, or not asked for."""
    with pytest.raises(ValueError, match="client_certificates is None, 'optional' or 'required', not 'yes'"):
        server_context(client_certificates="yes")  # type: ignore[arg-type]


# The files.

PEM_FILES = sorted(Path(cafile()).parent.iterdir())
LEAF_FILES = [path for path in PEM_FILES if path.name != "ca.pem"]


def test_all_files_have_names() -> None:
    """There is a file for each certificate's name, for clients and for the CA, and nothing else."""
    assert {path.name for path in PEM_FILES} == {f"{name}.pem" for name in (*CERTIFICATES, "client", "ca")}


def test_there_is_no_ca_key() -> None:
    """No file of the package has a private key but those of the leaves, which have one each."""
    package = Path(cafile()).parents[2]
    assert package.name == "pytest_smtpd"
    found = {path: path.read_bytes().count(b"PRIVATE KEY-----\n") for path in package.rglob("*") if path.is_file()}
    assert {path: count for path, count in found.items() if count} == dict.fromkeys(LEAF_FILES, 2)


@pytest.mark.parametrize("path", LEAF_FILES, ids=lambda path: path.stem)
def test_no_key_is_the_ca_s(path: Path) -> None:
    """No leaf's key is the one of the CA, nor of another leaf: it fits one certificate, its own."""
    fitting = []
    for certificate in PEM_FILES:
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, path)
        except ssl.SSLError as error:
            assert error.reason == "KEY_VALUES_MISMATCH"  # noqa: PT017
        else:
            fitting.append(certificate)
    assert fitting == [path]


def _ends() -> dict[str, str]:
    tls, _ = handshaken(server_context(client_certificates="required"), identified_context())
    client = tls.info.peer_certificate
    assert client
    authorities = client_context().get_ca_certs()
    (ca,) = [ca for ca in authorities if ca["subject"] == client["issuer"]]
    return {
        "localhost": shown("localhost")["notAfter"],
        "wrong-host": shown("wrong-host")["notAfter"],
        "self-signed": shown("self-signed", certfile("self-signed"))["notAfter"],
        "client": client["notAfter"],
        "ca": str(ca["notAfter"]),
    }


def test_there_is_time_to_renew() -> None:
    """The certificates that have to be valid are so for two more years: whoever sees this fail makes new ones."""
    in_two_years = time.time() + timedelta(days=730).total_seconds()
    ends = _ends()
    assert [name for name, end in ends.items() if ssl.cert_time_to_seconds(end) < in_two_years] == []


def test_dates_are_encoded_by_the_book() -> None:
    """Dates up to 2049 are UTCTime, with two digits for the year, those after it GeneralizedTime (RFC 5280 4.1.2.5)."""
    certificate = ssl.PEM_cert_to_DER_cert(Path(cafile()).read_text("ascii"))
    assert b"\x17\x0d000101000000Z\x18\x0f20691231235959Z" in certificate


def test_the_script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The script makes all the files anew, and they do the same."""
    try:
        import make_certificates
    except ImportError:
        missing("the script needs cryptography")
    make_certificates.main(tmp_path / "new")
    made = sorted((tmp_path / "new").iterdir())
    assert [path.name for path in made] == [path.name for path in PEM_FILES]
    assert not {path.read_bytes() for path in made} & {path.read_bytes() for path in PEM_FILES}
    earlier = _ends()
    monkeypatch.setattr("pytest_smtpd.network.tls._DIRECTORY", tmp_path / "new")
    assert _ends() == earlier
    test_good_certificate("localhost", ssl.TLSVersion.TLSv1_3)


# Real sockets and real clients.


class EchoServer:
    """One connection through a blocking socket, echoed by TLS; what came of it is left in `tls` and `received`."""

    def __init__(self, tls: TLS, listener: socket.socket) -> None:
        self.tls = tls
        self.address: Any = listener.getsockname()
        self.received = b""
        self._listener = listener

    def serve(self) -> None:
        """Echo until the client ends the connection, or the connection itself does."""
        connection, _ = self._listener.accept()
        # A client that closes its socket with data left to read resets the connection.
        with connection, suppress(ssl.SSLError, ConnectionError):
            connection.settimeout(10)
            while not self.tls.ended and (data := connection.recv(65_536)):
                try:
                    self._echo(data)
                finally:
                    connection.sendall(self.tls.data_to_send())

    def _echo(self, data: bytes) -> None:
        plaintext = self.tls.receive(data)
        self.received += plaintext
        if plaintext:
            self.tls.send(plaintext)
        if self.tls.ended:
            self.tls.close()


@contextmanager
def echo_server(context: ssl.SSLContext, host: str = "127.0.0.1") -> Iterator[EchoServer]:
    """Serve one connection in a thread, which is over when the context is left."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as listener:
        listener.settimeout(10)
        server = EchoServer(TLS(context), listener)
        thread = threading.Thread(target=server.serve, name="echo server of test_tls")
        thread.start()
        try:
            yield server
        finally:
            thread.join()


def has_ipv6() -> bool:
    """Say whether there is a loopback for IPv6."""
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


def read_exactly(connection: ssl.SSLSocket, size: int) -> bytes:
    """Read so many octets."""
    data = bytearray()
    while len(data) < size and (chunk := connection.recv(size)):
        data += chunk
    return bytes(data)


@pytest.mark.parametrize(("host", "name"), [("127.0.0.1", "localhost"), ("127.0.0.1", "127.0.0.1"), ("::1", "::1")])
def test_real_client(host: str, name: str) -> None:
    """A client that trusts the bundled CA and verifies the host's name talks to the server through a socket."""
    if ":" in host and not has_ipv6():
        missing("this machine has no ::1")
    with echo_server(server_context(), host) as server:
        plain = socket.create_connection(server.address[:2], timeout=10)
        with ssl.create_default_context(cafile=cafile()).wrap_socket(plain, server_hostname=name) as client:
            client.sendall(b"EHLO me\r\n")
            assert read_exactly(client, 9) == b"EHLO me\r\n"
            client.unwrap().close()
    assert server.tls.ended
    assert server.received == b"EHLO me\r\n"


def test_real_client_that_sends_much() -> None:
    """A mebibyte goes through a socket and back, a few records at a time."""
    with echo_server(server_context()) as server:
        plain = socket.create_connection(server.address, timeout=10)
        with client_context().wrap_socket(plain, server_hostname="localhost") as client:
            for piece in pieces_of(50_000)(LARGE):
                client.sendall(piece)
                assert read_exactly(client, len(piece)) == piece
    assert server.received == LARGE


def test_real_client_that_goes_away() -> None:
    """A client that closes its socket without a close_notify has not ended the connection by TLS's rules."""
    with echo_server(server_context()) as server:
        plain = socket.create_connection(server.address, timeout=10)
        with client_context().wrap_socket(plain, server_hostname="localhost") as client:
            client.sendall(b"QUIT\r\n")
            assert read_exactly(client, 6) == b"QUIT\r\n"
    assert server.tls.established
    assert not server.tls.ended
    assert server.tls.error is None


@pytest.mark.parametrize("certificate", CERTIFICATES[1:])
def test_real_client_that_refuses(certificate: str) -> None:
    """A real client refuses each bad certificate and goes; its alert may get lost when it resets the connection."""
    with (
        echo_server(server_context(certificate)) as server,
        socket.create_connection(server.address, timeout=10) as plain,
        pytest.raises(ssl.SSLCertVerificationError),
    ):
        client_context().wrap_socket(plain, server_hostname="localhost")
    assert not server.tls.established


def openssl() -> str:
    """Return the path of OpenSSL's command line."""
    path = shutil.which("openssl")
    if path is None or not subprocess.check_output([path, "version"]).startswith(b"OpenSSL"):  # noqa: S603
        missing("there is no openssl on the PATH")
    return path


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("certificate", [None, "client"])
def test_openssl(version: ssl.TLSVersion, certificate: str | None) -> None:
    """`openssl s_client` verifies the server, talks to it, and closes as it should, with a certificate or without."""
    command = [openssl(), "s_client", "-brief", "-verify_return_error", "-CAfile", cafile(), "-x509_strict"]
    command += [
        "-servername",
        "localhost",
        "-verify_hostname",
        "localhost",
        f"-{version.name.lower().replace('v', '')}",
    ]
    if certificate:
        command += ["-cert", certfile(certificate), "-key", certfile(certificate)]
    with echo_server(server_context(client_certificates="optional")) as server:
        command += ["-connect", f"127.0.0.1:{server.address[1]}"]
        pipes: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        with subprocess.Popen(command, **pipes) as client:  # noqa: S603
            assert client.stdin
            assert client.stdout
            client.stdin.write(b"hello\n")
            client.stdin.flush()
            assert client.stdout.readline() == b"hello\n"
            _, told = client.communicate(timeout=10)
    assert client.returncode == 0
    assert b"Verification: OK" in told
    assert b"Verified peername: localhost" in told
    assert server.tls.ended
    info = server.tls.info
    assert (info.version, info.server_name) == (version.name.replace("_", "."), "localhost")
    assert bool(info.peer_certificate) is bool(certificate)
