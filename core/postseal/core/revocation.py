"""Whether a certificate was revoked: by revocation lists and OCSP responses that somebody else fetched.

Nothing here asks anybody. Lists for a part of the certificates, lists of changes, and lists that another authority
made are not understood, and so refused.

Source: RFC 5280 5 and 6.3; RFC 6960 3.2 and 4.2.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from hashlib import new as new_hash
from typing import Any, Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID

from postseal.core import certificates
from postseal.core.errors import ConfigError

__all__ = ["Lists", "OcspResponse", "Status", "ocsp_request"]

_NAMING: Final = frozenset({"sha1", "sha256", "sha384", "sha512"})
"""Hashes that name an issuer. Nothing rests on them: the signature does the work."""
_SIGNING: Final = frozenset({"sha256", "sha384", "sha512"})
_SKEW: Final = 300.0
"""Seconds by which a list or a response may seem to come from the future."""


class Status(Enum):
    """What is known of a certificate."""

    GOOD = "good"
    REVOKED = "revoked"
    UNKNOWN = "unknown"


class Lists:
    """Revocation lists, one of each issuer.

    Args:
        lists: Of one issuer, the newest counts.
    """

    def __init__(self, lists: Iterable[x509.CertificateRevocationList]) -> None:
        self._of: dict[bytes, x509.CertificateRevocationList] = {}
        for one in sorted(lists, key=lambda one: one.last_update_utc):
            self._of[one.issuer.public_bytes()] = one

    @classmethod
    def read(cls, given: Any, what: str) -> Lists | None:
        """Read lists in PEM or DER; None where there are none.

        Raises:
            ConfigError: One cannot be read, or is of a kind that is not understood.
        """
        if isinstance(given, (bytes, str)):
            raise ConfigError(f"{what} must be a list of files' contents, not one")
        read = []
        for data in given:
            try:
                load = x509.load_pem_x509_crl if b"-----BEGIN" in data else x509.load_der_x509_crl
                one = load(data)
                critical = [e.oid.dotted_string for e in one.extensions if e.critical]
            except ValueError as error:
                raise ConfigError(f"{what}: {error}") from None
            if critical:
                raise ConfigError(
                    f"{what}: a list with critical extensions ({', '.join(critical)}) is not understood"
                )
            read.append(one)
        return cls(read) if read else None

    def status(
        self, certificate: x509.Certificate, issuer: x509.Certificate, now: float
    ) -> tuple[Status, float]:
        """Tell what is known of *certificate*, which *issuer* issued, and to when that holds, in seconds since the epoch."""
        found = self._of.get(certificate.issuer.public_bytes())
        public: Any = issuer.public_key()  # RSA or ECDSA, or it had issued nothing
        if found is None or not _signs_lists(issuer) or not found.is_signature_valid(public):
            return Status.UNKNOWN, 0.0
        if found.get_revoked_certificate_by_serial_number(certificate.serial_number) is not None:
            return Status.REVOKED, 0.0
        ends = found.next_update_utc
        if ends is None or now >= ends.timestamp() or found.last_update_utc.timestamp() > now + _SKEW:
            return Status.UNKNOWN, 0.0
        return Status.GOOD, ends.timestamp()


class OcspResponse:
    """A response that says of one certificate whether it is good.

    Args:
        response: Successful.
    """

    def __init__(self, response: ocsp.OCSPResponse) -> None:
        self._response = response

    @classmethod
    def read(cls, data: bytes) -> OcspResponse:
        """Read a response in DER.

        Raises:
            ValueError: It is none, or no successful one.
        """
        response = ocsp.load_der_ocsp_response(data)
        if response.response_status is not ocsp.OCSPResponseStatus.SUCCESSFUL:
            raise ValueError(f"an OCSP response that says {response.response_status.name}")
        return cls(response)

    def status(
        self, certificate: x509.Certificate, issuer: x509.Certificate, now: float
    ) -> tuple[Status, float]:
        """Tell what is known of *certificate*, which *issuer* issued, and to when that holds, in seconds since the epoch."""
        response = self._response
        if not self._is_about(certificate, issuer) or not self._is_signed(issuer, now):
            return Status.UNKNOWN, 0.0
        if response.certificate_status is ocsp.OCSPCertStatus.REVOKED:
            return Status.REVOKED, 0.0
        begins, ends = response.this_update_utc, response.next_update_utc
        if (
            response.certificate_status is not ocsp.OCSPCertStatus.GOOD
            or ends is None
            or now >= ends.timestamp()
            or begins.timestamp() > now + _SKEW
        ):
            return Status.UNKNOWN, 0.0
        return Status.GOOD, ends.timestamp()

    def _is_about(self, certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
        response, name = self._response, self._response.hash_algorithm.name
        if name not in _NAMING:
            return False
        of_name = new_hash(name, issuer.subject.public_bytes(), usedforsecurity=False).digest()
        of_key = new_hash(name, _key_bits(issuer.public_key()), usedforsecurity=False).digest()
        return (
            response.serial_number == certificate.serial_number
            and response.issuer_name_hash == of_name
            and response.issuer_key_hash == of_key
        )

    def _is_signed(self, issuer: x509.Certificate, now: float) -> bool:
        """Tell whether the issuer signed it, or a responder to whom it gave that right."""
        if _verifies(issuer.public_key(), self._response):
            return True
        return any(
            _may_respond(responder, issuer, now) and _verifies(responder.public_key(), self._response)
            for responder in self._response.certificates
        )


def ocsp_request(certificate: x509.Certificate, issuer: x509.Certificate) -> bytes:
    """Make the question about *certificate* to a responder, in DER. Source: RFC 6960 4.1; RFC 9654 for no nonce: responses have dates."""
    name: Any = hashes.SHA1()  # noqa: S303 - it names an issuer, and all responders know it: see _NAMING
    builder = ocsp.OCSPRequestBuilder().add_certificate(certificate, issuer, name)
    return builder.build().public_bytes(serialization.Encoding.DER)


def _signs_lists(issuer: x509.Certificate) -> bool:
    try:
        certificates.check_usage(issuer, "crl_sign")
    except ConfigError:
        return False
    return True


def _may_respond(responder: x509.Certificate, issuer: x509.Certificate, now: float) -> bool:
    """Source: RFC 6960 4.2.2.2."""
    try:
        responder.verify_directly_issued_by(issuer)
        uses = responder.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except (InvalidSignature, ValueError, TypeError, x509.ExtensionNotFound):
        return False
    begins, ends = certificates.window(responder)
    return ExtendedKeyUsageOID.OCSP_SIGNING in uses and begins <= now <= ends


def _verifies(public: Any, response: ocsp.OCSPResponse) -> bool:
    data, signature, hashed = (
        response.tbs_response_bytes,
        response.signature,
        response.signature_hash_algorithm,
    )
    try:
        if isinstance(public, (ed25519.Ed25519PublicKey, ed448.Ed448PublicKey)):
            public.verify(signature, data)
        elif hashed is None or hashed.name not in _SIGNING:
            return False
        elif isinstance(public, rsa.RSAPublicKey):
            public.verify(signature, data, padding.PKCS1v15(), hashed)
        elif isinstance(public, ec.EllipticCurvePublicKey):
            public.verify(signature, data, ec.ECDSA(hashed))
        else:
            return False
    except InvalidSignature:
        return False
    return True


def _key_bits(public: Any) -> bytes:
    """Return what stands in the BIT STRING of a SubjectPublicKeyInfo. Source: RFC 6960 4.1.1."""
    encoding, form = {
        True: (serialization.Encoding.DER, serialization.PublicFormat.PKCS1),
        False: (serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint),
    }[isinstance(public, rsa.RSAPublicKey)]
    bits: bytes = public.public_bytes(encoding, form)
    return bits
