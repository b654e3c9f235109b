"""X.509 identities that sign: whoever trusts an authority verifies through it, and need not know each key.

A certificate and its private key may be the pair that a TLS client uses, if its key usage allows signatures. The chain travels in the
message, or is known to who verifies. It is looked at once, and again after a while; each message costs its signature alone.

Source: SPEC.md 7.1 and 7.2; RFC 5280; RFC 6960; RFC 9360.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from itertools import pairwise
from typing import Any, Final, Literal, NoReturn, TypeAlias, get_args

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import NameOID

from postseal.core import certificates, crypto
from postseal.core.context import check_name
from postseal.core.errors import ConfigError, KeyRefused, KeyUnavailable, Refused, Verdict, nearest
from postseal.core.forking import ForkSafeLock
from postseal.core.revocation import Lists, OcspResponse, Status
from postseal.core.signing import (
    Ask,
    Ed25519Key,
    Es256Key,
    NotVouched,
    Origin,
    RingKey,
    Sign,
    SigningKey,
    State,
    vouched_key,
)
from postseal.core.wire import MAX_CERTIFICATE, MAX_CERTIFICATES, NO_CREDENTIAL, Credential

__all__ = ["FetchLists", "FetchOcsp", "OnStale", "X509Key", "X509Roots", "check_demand"]

FetchLists: TypeAlias = Callable[[], Iterable[bytes]]
"""Gives revocation lists, in PEM or DER. Called again when what it gave is too old; may take its time, and raise what it likes."""
FetchOcsp: TypeAlias = Callable[[x509.Certificate, x509.Certificate], bytes]
"""Gives the OCSP response, in DER, on a certificate, its first argument, that the second one issued. Likewise."""
OnStale: TypeAlias = Literal["wait", "accept"]
"""What to do where nobody can tell whether a certificate was revoked: keep the message, or go on."""

_MAX_ANSWERS: Final = 1024
_ATTRIBUTES: Final = {
    "C": NameOID.COUNTRY_NAME,
    "CN": NameOID.COMMON_NAME,
    "DC": NameOID.DOMAIN_COMPONENT,
    "L": NameOID.LOCALITY_NAME,
    "O": NameOID.ORGANIZATION_NAME,
    "OU": NameOID.ORGANIZATIONAL_UNIT_NAME,
    "SERIALNUMBER": NameOID.SERIAL_NUMBER,
    "ST": NameOID.STATE_OR_PROVINCE_NAME,
    "UID": NameOID.USER_ID,
}
"""Source: RFC 4514 3; RFC 5280 appendix A."""
_ALTERNATIVES: Final[Mapping[str, type[x509.DNSName | x509.UniformResourceIdentifier | x509.RFC822Name]]] = {
    "DNS": x509.DNSName,
    "EMAIL": x509.RFC822Name,
    "URI": x509.UniformResourceIdentifier,
}


class X509Key:
    """A certificate with its private key, Ed25519 or on P-256: signs, and verifies what it signed.

    Args:
        key_id: Names it in the policy.
        certificate: In PEM: the certificate, then those that lead towards the root, without the root.
        private_key: In PEM, or the key itself.
        password: Of the private key in PEM.
        senders: Who signs with it.
        carry: Whether messages carry the chain; else who verifies must have it.
        state: Whether it signs and verifies.
        retired_until: When a retired key ends to verify.
        clock: Seconds since the epoch.

    Raises:
        ConfigError: The certificate is not for signatures, is an authority's, has expired, or is of another key.
    """

    signed_between: tuple[int, int] | None = None
    state: State
    origin = Origin.SENDER
    can_sign = True

    def __init__(
        self,
        key_id: str,
        *,
        certificate: bytes,
        private_key: bytes | ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey,
        senders: Iterable[str],
        password: bytes | None = None,
        carry: bool = True,
        state: State = "active",
        retired_until: datetime | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        what = f"key {key_id!r}"
        chain = certificates.read(certificate, what)
        private = _private_key(private_key, password, what)
        options: dict[str, Any] = {"senders": senders, "state": state, "retired_until": retired_until}
        self._key: Ed25519Key | Es256Key
        if isinstance(private, ed25519.Ed25519PrivateKey):
            self._key = Ed25519Key(key_id, private_key=private, **options)
        else:
            self._key = Es256Key(key_id, private_key=private, **options)
        if crypto.fingerprint(chain[0].public_key()) not in self._key.public_key_fingerprints:
            raise ConfigError(f"{what}: the certificate is of another key than the private one")
        certificates.check_signer(chain[0])
        certificates.check_window(chain[0], clock())
        ders = [one.public_bytes(serialization.Encoding.DER) for one in chain]
        if len(ders) > MAX_CERTIFICATES or max(map(len, ders)) > MAX_CERTIFICATE:
            raise ConfigError(
                f"{what}: a chain is of {MAX_CERTIFICATES} certificates at most, each of {MAX_CERTIFICATE:,} bytes at most"
            )
        self.id, self.senders, self.algorithm = self._key.id, self._key.senders, self._key.algorithm
        self.state, self.retired_until = self._key.state, self._key.retired_until
        self.public_key_fingerprints = self._key.public_key_fingerprints
        self.kid = crypto.sha256(ders[0])
        self.credential = Credential.chain(ders).encode() if carry else NO_CREDENTIAL
        self.verifier = self._key.verifier
        self._subject = certificates.subject_of(chain[0])
        self._ends = certificates.window(chain[0])[1]
        self._clock = clock

    @property
    def good_until(self) -> float:
        """When the certificate ends: seconds since the epoch."""
        return self._ends

    def __repr__(self) -> str:
        return f"<X509Key {self.id!r} {self.state} {self._subject}>"

    def __reduce__(self) -> str:
        raise TypeError("a key is not for pickling")

    def signer(self, sender: str, destination: str, prefix: bytes = b"") -> Sign:
        """Return the function that signs, until the certificate expires; then it raises `KeyRefused`."""
        sign, ends, clock, subject = (
            self._key.signer(sender, destination, prefix),
            self._ends,
            self._clock,
            self._subject,
        )

        def sign_until(message: bytes) -> bytes:
            if clock() > ends:
                raise KeyRefused(f"the certificate of {subject} has expired: nothing is signed with it")
            return sign(message)

        return sign_until


class X509Roots(RingKey):
    """Verifies through certificates that one of *roots* vouches for, by what they are named.

    Args:
        key_id: Names it in the policy.
        roots: Certificates of the authorities that are trusted, in PEM; no others are, those of the machine included.
        senders: What the certificate of each sender must be named, all of it: ``{"billing-api": ["CN=billing-api", "O=Shop"]}``, or by
            alternative names: ``["URI:spiffe://shop/billing"]``, ``DNS:`` or ``EMAIL:``.
        known: Certificates in PEM whose holders may leave them out of messages, and those between them and the roots.
        lists: Revocation lists, in PEM or DER, or what fetches them. Where there are any, each certificate under a root needs one.
        ocsp: What fetches OCSP responses. Where given, each signer's certificate needs one.
        on_stale: Where a list or response is missing or too old: ``"wait"`` raises `KeyUnavailable`, so that messages are kept;
            ``"accept"`` goes on with what is known.
        max_age: Seconds after which a certificate is looked at again: what was revoked meanwhile ends within that.
        state: Whether it verifies.
        retired_until: When a retired one ends to.
        clock: Seconds since the epoch.

    Raises:
        ConfigError: An option makes no sense, or something cannot be read.
    """

    origin = Origin.SENDER
    can_sign = False

    def __init__(
        self,
        key_id: str,
        *,
        roots: bytes,
        senders: Mapping[str, Sequence[str]],
        known: bytes = b"",
        lists: Iterable[bytes] | FetchLists = (),
        ocsp: FetchOcsp | None = None,
        on_stale: OnStale = "wait",
        max_age: float = 300.0,
        state: State = "active",
        retired_until: datetime | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        what = f"key {key_id!r}"
        if not isinstance(senders, Mapping):
            raise ConfigError(
                f"{what}: senders must say for each sender how its certificate is named: {{'billing-api': ['CN=billing-api']}}"
            )
        super().__init__(key_id, tuple(senders), state, retired_until)
        self._demands = {
            sender: _demands(names, f"{what}, sender {sender!r}") for sender, names in senders.items()
        }
        self._roots = certificates.read(roots, f"{what}: roots")
        for root in self._roots:
            certificates.check_authority(root)
        given = certificates.read(known, f"{what}: known") if known else ()
        self._between = tuple(one for one in given if certificates.is_authority(one))
        self._known = {crypto.sha256(_der(one)): one for one in given if not certificates.is_authority(one)}
        self.public_key_fingerprints = frozenset(
            crypto.fingerprint(one.public_key()) for one in self._known.values()
        )
        if on_stale not in get_args(OnStale):
            raise ConfigError(f"{what}: on_stale is {on_stale!r}{nearest(str(on_stale), get_args(OnStale))}")
        if not 0 < max_age <= 86_400:  # noqa: PLR2004 - a day, in seconds
            raise ConfigError(f"{what}: max_age must be over 0 and at most 86,400 seconds: {max_age!r}")
        self._accepts_stale = on_stale == "accept"
        self._max_age, self._clock = max_age, clock
        self._fetch_lists = lists if callable(lists) else None
        self._lists: Lists | None = None if callable(lists) else Lists.read(lists, f"{what}: lists")
        self._fetched = -1.0
        self._fetch_ocsp = ocsp
        self._answers: dict[bytes, tuple[float, OcspResponse | None]] = {}
        self._lock = ForkSafeLock()

    def vouch(self, unverified_key_id: bytes, unverified_credential: Credential | None) -> SigningKey | None:
        """Return the key of the certificate of that hash, if one of the roots vouches for it.

        Raises:
            Refused: *unknown-key* or *unknown-sender*.
            Ask: What tells of revocation has to be fetched.
            KeyUnavailable: Nobody can tell now whether it was revoked.
        """
        ders = () if unverified_credential is None else unverified_credential.certificates
        try:
            if ders:
                leaf, *between = map(x509.load_der_x509_certificate, ders)
            elif unverified_key_id in self._known:
                leaf, between = self._known[unverified_key_id], []
            else:
                return None
            return self._judge(unverified_key_id, leaf, (*between, *self._between))
        except (Refused, KeyUnavailable, Ask):
            raise
        except Exception as error:  # noqa: BLE001 - a stranger's certificate may be wrong in any way that its parser knows
            raise Refused(
                Verdict.UNKNOWN_KEY, f"its certificate is not accepted: {_printable(error)}"
            ) from None

    def _judge(self, kid: bytes, leaf: x509.Certificate, between: Sequence[x509.Certificate]) -> SigningKey:
        now = self._clock()
        certificates.check_signer(leaf)
        try:
            chain = certificates.check_chain((leaf, *between), self._roots, now)
        except ConfigError as error:
            raise NotVouched(
                Verdict.UNKNOWN_KEY, f"its certificate is not accepted: {_printable(error)}"
            ) from None
        senders = [
            sender for sender, demands in self._demands.items() if all(demand(leaf) for demand in demands)
        ]
        if not senders:
            raise NotVouched(Verdict.UNKNOWN_SENDER, "its certificate has the names of none of the senders")
        until = min(now + self._max_age, *(certificates.window(one)[1] for one in chain))
        if self._lists is not None or self._fetch_lists is not None:
            until = min(until, self._check_lists(chain, now))
        if self._fetch_ocsp is not None:
            until = min(
                until,
                self._check_ocsp(self._fetch_ocsp, kid, leaf, chain[1] if len(chain) > 1 else leaf, now),
            )
        public = leaf.public_key()
        return vouched_key(public, voucher=self, kid=kid, senders=senders, until=until)

    # -- revocation ------------------------------------------------------------------------------------------------

    def _check_lists(self, chain: Sequence[x509.Certificate], now: float) -> float:
        """See that no list has a certificate of *chain*; return to when that holds."""
        if self._fetch_lists is not None and not 0 <= now - self._fetched < self._max_age:
            raise Ask((id(self), "lists"), self._ask_for_lists)
        until = now + self._max_age
        for one, issuer in pairwise(chain):
            found = Status.UNKNOWN, 0.0
            if self._lists is not None:
                found = self._lists.status(one, issuer, now)
            until = min(until, self._weighed(found, one, now))
        return until

    def _ask_for_lists(self) -> None:
        if self._fetch_lists is None:
            return
        try:
            fetched = Lists.read(self._fetch_lists(), "a fetched revocation list")
        except Exception as error:  # the caller's own may raise whatever it likes
            if self._lists is None and not self._accepts_stale:
                raise KeyUnavailable(f"no revocation lists for {self}: {type(error).__name__}") from error
        else:
            self._lists = fetched  # those from before serve on until they are too old
        self._fetched = self._clock()

    def _check_ocsp(
        self, fetch: FetchOcsp, kid: bytes, leaf: x509.Certificate, issuer: x509.Certificate, now: float
    ) -> float:
        """See that *leaf* is good by its OCSP response; return to when that holds."""
        asked, response = self._answers.get(kid, (0.0, None))
        if not 0 <= now - asked < self._max_age:
            raise Ask((id(self), kid), lambda: self._ask_for_response(fetch, kid, leaf, issuer))
        found = Status.UNKNOWN, 0.0
        if response is not None:
            found = response.status(leaf, issuer, now)
        return self._weighed(found, leaf, now)

    def _ask_for_response(
        self, fetch: FetchOcsp, kid: bytes, leaf: x509.Certificate, issuer: x509.Certificate
    ) -> None:
        try:
            answer: OcspResponse | None = OcspResponse.read(fetch(leaf, issuer))
        except Exception as error:  # likewise
            known = self._answers.get(kid, (0.0, None))[1]
            if known is None and not self._accepts_stale:
                raise KeyUnavailable(f"no OCSP response for {self}: {type(error).__name__}") from error
            answer = known  # serves on until it is too old
        with self._lock:
            while len(self._answers) >= _MAX_ANSWERS:
                del self._answers[next(iter(self._answers))]
            self._answers[kid] = self._clock(), answer

    def _weighed(self, found: tuple[Status, float], one: x509.Certificate, now: float) -> float:
        status, until = found
        if status is Status.REVOKED:
            raise Refused(Verdict.UNKNOWN_KEY, "its certificate, or one above it, was revoked")
        if status is Status.GOOD:
            return until
        if self._accepts_stale:
            return now + self._max_age
        raise KeyUnavailable(
            f"nobody can tell whether the certificate of {certificates.subject_of(one)} was revoked: {self}"
        )


def _demands(names: Sequence[str], what: str) -> list[Callable[[x509.Certificate], bool]]:
    """Turn names that a certificate must have into what looks at it."""
    if isinstance(names, str) or not names:
        raise ConfigError(
            f"{what}: a list of names of its certificate is needed, like ['CN=billing-api', 'O=Shop']"
        )
    return [_demand(name, what) for name in names]


def check_demand(name: str) -> None:
    """See that *name* is what a certificate can be named.

    Raises:
        ConfigError: It is not.
    """
    _demand(name, "names")


def _demand(name: str, what: str) -> Callable[[x509.Certificate], bool]:
    check_name(name, f"{what}: a name", most=512)
    kind, equals, value = name.partition("=")
    if equals and kind in _ATTRIBUTES and value:
        oid = _ATTRIBUTES[kind]
        return lambda one: any(
            attribute.value == value for attribute in one.subject.get_attributes_for_oid(oid)
        )
    kind, colon, value = name.partition(":")
    if colon and kind in _ALTERNATIVES and value:
        type_ = _ALTERNATIVES[kind]
        return lambda one: value in _alternatives(one, type_)
    known = [f"{word}=" for word in _ATTRIBUTES] + [f"{word}:" for word in _ALTERNATIVES]
    raise ConfigError(f"{what}: {name!r} is no name of a certificate; they begin with {', '.join(known)}")


def _alternatives(one: x509.Certificate, type_: Any) -> list[str]:
    try:
        extension = one.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return []
    return list(extension.value.get_values_for_type(type_))


def _private_key(given: Any, password: bytes | None, what: str) -> Any:
    if not isinstance(given, bytes):
        return given
    try:
        return serialization.load_pem_private_key(given, password)
    except (ValueError, TypeError):
        _unreadable(what)


def _unreadable(what: str) -> NoReturn:
    """Refuse, without the parser's own words: those may hold a part of the key."""
    raise ConfigError(
        f"{what}: the private key cannot be read: PEM is needed, and its password where it has one"
    )


def _printable(error: Exception) -> str:
    """Say what *error* says, as far as it goes into a line of a log: it may quote the stranger's certificate."""
    return "".join(c if c.isprintable() else "?" for c in str(error)[:200])


def _der(one: x509.Certificate) -> bytes:
    return one.public_bytes(serialization.Encoding.DER)
