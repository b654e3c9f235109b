"""X.509 certificates, read and judged: what the key is for, when it holds, and who vouches for it.

Shared by recipients and signers. Chains are checked by cryptography's own path validation, with this difference to a browser's rules: no
name of a host is asked for, and no extended key usage. Certificate authorities have RSA or ECDSA keys there.

Source: RFC 5280 4.2.1.3 and 6.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import (
    Criticality,
    ExtensionPolicy,
    Policy,
    PolicyBuilder,
    Store,
    VerificationError,
)

from postseal.core.errors import ConfigError

__all__ = [
    "check_authority",
    "check_chain",
    "check_signer",
    "check_usage",
    "check_window",
    "is_authority",
    "read",
    "subject_of",
    "window",
]

_SIGNERS_USES: Final = frozenset(
    {ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE}
)
_MARK: Final = b"-----BEGIN CERTIFICATE-----"


def read(pem: bytes, what: str = "certificate") -> tuple[x509.Certificate, ...]:
    """Read the certificates of *pem*: the first is the holder's own, those that follow lead towards a root.

    Raises:
        ConfigError: There is none, or one that cannot be read.
    """
    if _MARK not in pem:
        raise ConfigError(f"{what}: no certificate in PEM")
    try:
        return tuple(x509.load_pem_x509_certificates(pem))
    except ValueError as error:
        raise ConfigError(f"{what}: {error}") from None


def subject_of(certificate: x509.Certificate) -> str:
    """Return the subject as RFC 4514 writes it."""
    return certificate.subject.rfc4514_string() or f"serial {certificate.serial_number:x}"


def window(certificate: x509.Certificate) -> tuple[float, float]:
    """Return from when to when it holds: seconds since the epoch."""
    return (
        certificate.not_valid_before_utc.timestamp(),
        certificate.not_valid_after_utc.timestamp(),
    )


def check_window(certificate: x509.Certificate, at: float) -> None:
    """See that *certificate* holds *at* that time, seconds since the epoch.

    Raises:
        ConfigError: It has expired, or has not begun.
    """
    begins, ends = window(certificate)
    if not begins <= at <= ends:
        when = "has expired" if at > ends else "is not valid yet"
        raise ConfigError(f"the certificate of {subject_of(certificate)} {when}")


def check_usage(certificate: x509.Certificate, *allowed: str) -> None:
    """See that the key usage of *certificate*, where it names any, has one of *allowed*: ``key_agreement``, say.

    Raises:
        ConfigError: It has none of them.
    """
    try:
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        return
    except ValueError as error:
        raise ConfigError(f"the certificate of {subject_of(certificate)}: {error}") from None
    if not any(getattr(usage, name) for name in allowed):
        words = " or ".join(_camel(name) for name in allowed)
        raise ConfigError(f"the certificate of {subject_of(certificate)} is not for {words}")


def is_authority(certificate: x509.Certificate) -> bool:
    """Tell whether *certificate* says that it is an authority's."""
    try:
        return bool(certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca)
    except x509.ExtensionNotFound:
        return False


def check_signer(certificate: x509.Certificate) -> None:
    """See that *certificate* is for signatures over messages: not an authority's, and neither usage forbids it.

    What serves as a TLS client's does; what is for something else alone, a server's or a time stamp's, does not.

    Raises:
        ConfigError: It is not.
    """
    if is_authority(certificate):
        raise ConfigError(
            f"the certificate of {subject_of(certificate)} is an authority's: it signs no messages"
        )
    check_usage(certificate, "digital_signature")
    try:
        uses = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return
    if not _SIGNERS_USES.intersection(uses):
        raise ConfigError(
            f"the certificate of {subject_of(certificate)} is not for clients: see its extended key usage"
        )


def check_authority(certificate: x509.Certificate) -> None:
    """See that *certificate* may be trusted as a root.

    Raises:
        ConfigError: It is no authority's, or its key is of a kind that cryptography takes no chains from.
    """
    if not is_authority(certificate):
        raise ConfigError(
            f"the certificate of {subject_of(certificate)} is no authority's: it cannot be a root"
        )
    check_usage(certificate, "key_cert_sign")
    if not isinstance(certificate.public_key(), (RSAPublicKey, EllipticCurvePublicKey)):
        raise ConfigError(
            f"the root {subject_of(certificate)} has neither an RSA nor an ECDSA key: no chain leads to it"
        )


def _camel(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(map(str.capitalize, others))


def check_chain(
    chain: Sequence[x509.Certificate], roots: Sequence[x509.Certificate], at: float
) -> tuple[x509.Certificate, ...]:
    """See that the first of *chain* is vouched for, through the others, by one of *roots* *at* that time.

    Args:
        chain: As `read` gives it.
        roots: The authorities that are trusted, and no others: the machine's own do not count.
        at: Seconds since the epoch.

    Returns:
        The chain that was found, from the first of *chain* to the root.

    Raises:
        ConfigError: It is not.
    """
    # What a certificate is for, the caller says with `check_usage`; a host's name has no meaning here.
    holders = ExtensionPolicy.permit_all()
    authorities = holders.require_present(x509.BasicConstraints, Criticality.AGNOSTIC, None).may_be_present(
        x509.KeyUsage, Criticality.AGNOSTIC, _signs_certificates
    )
    builder = PolicyBuilder().store(Store(list(roots))).time(datetime.fromtimestamp(at, UTC))
    verifier = builder.extension_policies(ca_policy=authorities, ee_policy=holders).build_client_verifier()
    try:
        return tuple(verifier.verify(chain[0], list(chain[1:])).chain)
    except VerificationError as error:
        reason = str(error).partition(" (encountered")[0][:200]
        raise ConfigError(
            f"the certificate of {subject_of(chain[0])} does not lead to a root that is trusted here: {reason}"
        ) from None


def _signs_certificates(_policy: Policy, _authority: x509.Certificate, usage: x509.KeyUsage | None) -> None:
    """Refuse an authority whose key usage is not to sign certificates. Source: RFC 5280 4.2.1.3."""
    if usage is not None and not usage.key_cert_sign:
        raise ValueError("an authority whose key usage is not keyCertSign")
