"""Make the certificates that the package bundles, all of them anew.

    pip install cryptography
    python tests/make_certificates.py

It writes PEM files into `pytest_smtpd/network/certificates/`. `ca.pem` is a certificate alone: the CA's private
key exists only in memory while this runs, so nobody can ever have it sign anything else, and trusting the CA
endangers nobody. The keys of the other files are public, like everything here. Therefore one file can't be made
anew without the others.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

DIRECTORY = Path(__file__).resolve().parent.parent / "pytest_smtpd" / "network" / "certificates"

SERVER, CLIENT = ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH

#: The years of validity, from the first second of the first to the last second of the second. After 2049 ASN.1's
#: UTCTime has no more years and GeneralizedTime takes over (RFC 5280 4.1.2.5); `cryptography` sees to that.
LONG = (2000, 2069)

LOCALHOST = (
    x509.DNSName("localhost"),
    x509.IPAddress(ip_address("127.0.0.1")),
    x509.IPAddress(ip_address("::1")),
)


@dataclass(frozen=True, slots=True)
class Leaf:
    """What is in a certificate that is not a CA's."""

    names: tuple[x509.GeneralName, ...] = LOCALHOST
    years: tuple[int, int] = LONG
    usage: x509.ObjectIdentifier = SERVER


LEAVES = {
    "localhost": Leaf(),
    "expired": Leaf(years=(2000, 2000)),
    "not-yet-valid": Leaf(years=(2069, 2069)),
    "wrong-host": Leaf(names=(x509.DNSName("wrong.example"),)),
    "client": Leaf(names=(x509.RFC822Name("client@example.org"),), usage=CLIENT),
}


@dataclass(frozen=True, slots=True)
class Authority:
    """A CA, as long as this runs."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


def distinguished_name(common_name: str) -> x509.Name:
    """Return the name of a subject; it says that it is good for tests and nothing else."""
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "pytest-smtpd-server, for tests only"),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
        ]
    )


def key_usage(*, of_a_ca: bool) -> x509.KeyUsage:
    """Return what a key may do: a CA's signs certificates, all others take part in handshakes."""
    return x509.KeyUsage(
        digital_signature=not of_a_ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=of_a_ca,
        crl_sign=of_a_ca,
        encipher_only=False,
        decipher_only=False,
    )


def build(
    common_name: str, key: ec.EllipticCurvePrivateKey, years: tuple[int, int], *, of_a_ca: bool = False
) -> x509.CertificateBuilder:
    """Return a certificate with all that certificates have in common, still without an issuer."""
    return (
        x509.CertificateBuilder()
        .subject_name(distinguished_name(common_name))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime(years[0], 1, 1, tzinfo=UTC))
        .not_valid_after(datetime(years[1], 12, 31, 23, 59, 59, tzinfo=UTC))
        .add_extension(x509.BasicConstraints(ca=of_a_ca, path_length=0 if of_a_ca else None), critical=True)
        .add_extension(key_usage(of_a_ca=of_a_ca), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def sign(
    builder: x509.CertificateBuilder, issuer: x509.Name, issuer_key: ec.EllipticCurvePrivateKey
) -> x509.Certificate:
    """Finish a certificate; VERIFY_X509_STRICT wants to find the issuer's key by its identifier."""
    identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key())
    return builder.issuer_name(issuer).add_extension(identifier, critical=False).sign(issuer_key, hashes.SHA256())


def make_authority() -> Authority:
    """Return a new CA."""
    key = ec.generate_private_key(ec.SECP256R1())
    builder = build("pytest-smtpd-server test CA", key, LONG, of_a_ca=True)
    return Authority(sign(builder, distinguished_name("pytest-smtpd-server test CA"), key), key)


def make_leaf(name: str, leaf: Leaf, authority: Authority | None) -> bytes:
    """Return a new certificate, signed by the authority or (None) by itself, and its key, as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    builder = (
        build(name, key, leaf.years)
        .add_extension(x509.ExtendedKeyUsage([leaf.usage]), critical=False)
        .add_extension(x509.SubjectAlternativeName(leaf.names), critical=False)
    )
    if authority is None:
        certificate = sign(builder, distinguished_name(name), key)
    else:
        certificate = sign(builder, authority.certificate.subject, authority.key)
    return certificate.public_bytes(serialization.Encoding.PEM) + key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def main(directory: Path = DIRECTORY) -> None:
    """Write all files."""
    directory.mkdir(parents=True, exist_ok=True)
    authority = make_authority()
    (directory / "ca.pem").write_bytes(authority.certificate.public_bytes(serialization.Encoding.PEM))
    for name, leaf in LEAVES.items():
        (directory / f"{name}.pem").write_bytes(make_leaf(name, leaf, authority))
    (directory / "self-signed.pem").write_bytes(make_leaf("self-signed", Leaf(), None))


if __name__ == "__main__":
    main()
