"""A public key infrastructure for tests of signers: authorities, certificates, revocation lists and OCSP responses."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tests.core.authority import usage

NOW = dt.datetime(2026, 10, 1, 9, 30, 15, tzinfo=dt.UTC)
CLIENT, SERVER = ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH
_WORDS = {"CN": NameOID.COMMON_NAME, "O": NameOID.ORGANIZATION_NAME, "OU": NameOID.ORGANIZATIONAL_UNIT_NAME}
DAY = dt.timedelta(days=1)


def new_key(kind: str = "es256") -> Any:
    if kind == "ed25519":
        return ed25519.Ed25519PrivateKey.generate()
    if kind == "rsa":
        return rsa.generate_private_key(65537, 2048)
    return ec.generate_private_key(ec.SECP384R1() if kind == "p384" else ec.SECP256R1())


def name_of(text: str) -> x509.Name:
    """Turn ``CN=a,O=b`` into a name."""
    parts = [part.split("=", 1) for part in text.split(",") if part]
    return x509.Name([x509.NameAttribute(_WORDS[word], value) for word, value in parts])


def pem(*certificates: x509.Certificate) -> bytes:
    return b"".join(one.public_bytes(serialization.Encoding.PEM) for one in certificates)


def private_pem(key: Any) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


class Ca:
    """An authority, and what it issues."""

    def __init__(
        self,
        name: str = "CN=root",
        above: Ca | None = None,
        *,
        kind: str = "es256",
        now: dt.datetime = NOW,
        **used: bool,
    ) -> None:
        self.name = name_of(name)
        self.key = new_key(kind)
        self.above = above
        used = used or {"key_cert_sign": True, "crl_sign": True}
        issuer = above or self
        self.certificate = issuer.certify(
            self.name,
            self.key,
            authority=True,
            used=used,
            uses=None,
            begins=now - 10 * DAY,
            ends=now + 10 * DAY,
        )

    def certify(
        self,
        subject: x509.Name | str,
        key: Any,
        *,
        authority: bool = False,
        used: dict[str, bool] | None = None,
        uses: Sequence[x509.ObjectIdentifier] | None = (CLIENT,),
        alternatives: Sequence[x509.GeneralName] = (),
        begins: dt.datetime = NOW - 10 * DAY,
        ends: dt.datetime = NOW + 10 * DAY,
        extra: Sequence[tuple[x509.ExtensionType, bool]] = (),
    ) -> x509.Certificate:
        subject = name_of(subject) if isinstance(subject, str) else subject
        used = {"digital_signature": True} if used is None else used
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(begins)
            .not_valid_after(ends)
            .add_extension(x509.BasicConstraints(authority, None), critical=True)
        )
        if used:
            builder = builder.add_extension(usage(**used), critical=True)
        if uses is not None:
            builder = builder.add_extension(x509.ExtendedKeyUsage(uses), critical=False)
        if alternatives:
            builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        for extension, critical in extra:
            builder = builder.add_extension(extension, critical)
        return builder.sign(self.key, self._hash)

    @property
    def _hash(self) -> Any:
        return None if isinstance(self.key, ed25519.Ed25519PrivateKey) else hashes.SHA256()

    def revocation_list(
        self,
        *revoked: x509.Certificate,
        updated: dt.datetime = NOW - DAY,
        due: dt.datetime = NOW + DAY,
        by: Ca | None = None,
        extra: Sequence[tuple[x509.ExtensionType, bool]] = (),
    ) -> bytes:
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.name)
            .last_update(updated)
            .next_update(due)
        )
        for one in revoked:
            builder = builder.add_revoked_certificate(
                x509.RevokedCertificateBuilder()
                .serial_number(one.serial_number)
                .revocation_date(updated)
                .build()
            )
        for extension, critical in extra:
            builder = builder.add_extension(extension, critical)
        signer = by or self
        return builder.sign(signer.key, signer._hash).public_bytes(serialization.Encoding.PEM)

    def response(
        self,
        about: x509.Certificate,
        status: ocsp.OCSPCertStatus = ocsp.OCSPCertStatus.GOOD,
        *,
        updated: dt.datetime = NOW - DAY,
        due: dt.datetime | None = NOW + DAY,
        responder: tuple[x509.Certificate, Any] | None = None,
        hashed: Any = None,
    ) -> bytes:
        certificate, key = responder or (self.certificate, self.key)
        builder = (
            ocsp.OCSPResponseBuilder()
            .add_response(
                cert=about,
                issuer=self.certificate,
                algorithm=hashed or hashes.SHA1(),  # noqa: S303 - what everybody names issuers by
                cert_status=status,
                this_update=updated,
                next_update=due,
                revocation_time=updated if status is ocsp.OCSPCertStatus.REVOKED else None,
                revocation_reason=None,
            )
            .responder_id(ocsp.OCSPResponderEncoding.HASH, certificate)
        )
        if responder is not None:
            builder = builder.certificates([certificate])
        return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)
