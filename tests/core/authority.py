"""An authority that issues certificates, for tests."""

from __future__ import annotations

import datetime as dt
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

NOW = dt.datetime(2026, 10, 1, 9, 30, tzinfo=dt.UTC)
USAGES = (
    *("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement"),
    *("key_cert_sign", "crl_sign", "encipher_only", "decipher_only"),
)


def usage(**named: bool) -> x509.KeyUsage:
    return x509.KeyUsage(**dict.fromkeys(USAGES, False) | named)


def certificate_of(
    subject: str,
    issuer: str,
    public: Any,
    signer: Any,
    used: x509.KeyUsage | None,
    *,
    authority: bool = False,
) -> bytes:
    """Sign a certificate that holds for thirty days around `NOW`."""

    def name(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

    builder = (
        x509.CertificateBuilder()
        .subject_name(name(subject))
        .issuer_name(name(issuer))
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - dt.timedelta(days=30))
        .not_valid_after(NOW + dt.timedelta(days=30))
        .add_extension(x509.BasicConstraints(authority, None), critical=True)
    )
    if used is not None:
        builder = builder.add_extension(used, critical=True)
    return builder.sign(signer, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


class Authority:
    """A root, or one below it."""

    def __init__(self, name: str = "root", above: Authority | None = None) -> None:
        self.name = name
        self.key = ec.generate_private_key(ec.SECP256R1())
        issuer = above or self
        self.pem = certificate_of(
            name, issuer.name, self.key.public_key(), issuer.key, usage(key_cert_sign=True), authority=True
        )

    def authority(self, name: str) -> Authority:
        return Authority(name, self)

    def issue(self, subject: str, public: Any, **used: bool) -> bytes:
        """Return a certificate in PEM; without *used*, one that says nothing of usage."""
        return certificate_of(subject, self.name, public, self.key, usage(**used) if used else None)
