"""A group: one key to wrap for, which its members have, however many they are; who leaves cannot read what follows.

A group's key is a key pair of an *epoch*. Its private part is wrapped for the public key of each member, in a document that is signed by
who introduces them. Producers wrap for the group alone: a message grows by one recipient. Who is removed is not among those whom the next
epoch's key is wrapped for; what he could read before, he may have kept.

Source: docs/groups.md.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Final, NamedTuple

from postseal.core import crypto
from postseal.core.context import check_name
from postseal.core.crypto import DATA_KEY_SIZE, RandomBytes
from postseal.core.directory import Fetch, Published
from postseal.core.errors import ConfigError, KeyBroken, nearest
from postseal.core.keys import KeyContext, NewDataKey, NotMine, Recipient
from postseal.core.providers._attempts import first_that_opens
from postseal.core.providers._binding import canonical
from postseal.core.publickeys import (
    ECDH_ES_A256KW,
    KEY_ID_SIZE,
    X_WING_A256KW,
    OpeningKey,
    RecipientKey,
)
from postseal.core.signing import KeyRing

__all__ = ["Epoch", "Group", "GroupKeys"]

_KINDS: Final = ("x-wing", "x25519")
_ALGORITHMS: Final = (ECDH_ES_A256KW, X_WING_A256KW)
_MOST_MEMBERS: Final = 1024


class Epoch(NamedTuple):
    """A key of the group, from one change of its members to the next.

    Attributes:
        number: From 1.
        public: Whom producers wrap for.
        grants: Its private part, wrapped for members, by their names.
    """

    number: int
    public: RecipientKey
    grants: Mapping[str, bytes]


class Group(NamedTuple):
    """A group as its document says. Every change gives a new one, to be signed.

    Attributes:
        name: Of the group.
        version: Grows with each change.
        members: Their public keys, by name.
        epochs: The last is in force.
        issued_by: Who signed it; empty before it is.
    """

    name: str
    version: int
    members: Mapping[str, RecipientKey]
    epochs: tuple[Epoch, ...]
    issued_by: str = ""

    @classmethod
    def create(cls, name: str, members: Mapping[str, RecipientKey], *, kind: str = "x25519") -> Group:
        """Make a group with a first key.

        Args:
            name: 1 to 64 bytes.
            members: Their public keys, by name.
            kind: Of the group's key: ``x25519`` or ``x-wing``.

        Raises:
            ConfigError: No members, one of them twice, or no such kind.
        """
        check_name(name, "a group's name", most=64)
        if kind not in _KINDS:
            raise ConfigError(f"a group's key is x25519 or x-wing, not {kind!r}")
        return cls(name, 0, {}, ()).changed(members, kind=kind)

    @property
    def public(self) -> RecipientKey:
        """Whom producers wrap for now."""
        return self.epochs[-1].public

    def add(self, name: str, key: RecipientKey, *, current: OpeningKey | None = None) -> Group:
        """Have another member.

        Args:
            name: Of the member.
            key: Its public key.
            current: The private key of a member: the new one then has the key in force too, and reads what was sealed since it began.
                Without it a new epoch begins, and the new one reads what follows alone.

        Raises:
            ConfigError: There is a member of that name or key, or *current* is no member's.
        """
        if name in self.members:
            raise ConfigError(f"{name!r} is a member of {self.name!r} already")
        members = {**self.members, name: key}
        if current is None:
            return self.changed(members)
        last = self.epochs[-1]
        seed = self.seed(last, current)
        if seed is None:
            raise ConfigError(
                f"the key given is of no member of {self.name!r}: it cannot hand on the group's"
            )
        granted = last._replace(grants={**last.grants, name: key.wrap(seed, self._bound(last.number))})
        return self._replace(
            version=self.version + 1,
            members=_checked(members),
            epochs=(*self.epochs[:-1], granted),
            issued_by="",
        )

    def remove(self, name: str) -> Group:
        """Have one member less, and a new key, which it does not have.

        Raises:
            ConfigError: There is none of that name, or it is the last.
        """
        if name not in self.members:
            raise ConfigError(f"{self.name!r} has no member {name!r}{nearest(name, self.members)}")
        return self.changed({member: key for member, key in self.members.items() if member != name})

    def changed(self, members: Mapping[str, RecipientKey], *, kind: str | None = None) -> Group:
        """Begin a new epoch with *members*; who is none of them loses the grants of former ones, too."""
        members = _checked(members)
        key = OpeningKey.generate(kind or self.public.kind)
        number = len(self.epochs) + 1
        bound = self._bound(number)
        grants = {name: member.wrap(key.seed, bound) for name, member in members.items()}
        former = (
            epoch._replace(
                grants={
                    name: wrapped
                    for name, wrapped in epoch.grants.items()
                    if self.members.get(name) == members.get(name)
                }
            )
            for epoch in self.epochs
        )
        return self._replace(
            version=self.version + 1,
            members=members,
            epochs=(*former, Epoch(number, key.public, grants)),
            issued_by="",
        )

    def seed(self, epoch: Epoch, key: OpeningKey) -> bytes | None:
        """Return the private part of *epoch*, if it was wrapped for *key*."""
        for name, member in self.members.items():
            if member == key.public and name in epoch.grants:
                return key.unwrap(epoch.grants[name], self._bound(epoch.number))
        return None

    def opening_keys(self, keys: Iterable[OpeningKey]) -> dict[bytes, OpeningKey]:
        """Return the group's private keys that members with *keys* have, by key id: of every epoch that was granted to them.

        Raises:
            ConfigError: A grant is not what it says.
        """
        found: dict[bytes, OpeningKey] = {}
        for epoch in self.epochs:
            for key in keys:
                try:
                    seed = self.seed(epoch, key)
                except KeyBroken:
                    raise ConfigError(f"epoch {epoch.number} of {self.name!r} was wrapped wrongly") from None
                if seed is not None:
                    opening = OpeningKey.from_seed(seed, epoch.public.kind)
                    if opening.public != epoch.public:
                        raise ConfigError(
                            f"epoch {epoch.number} of {self.name!r} grants another key than its own"
                        )
                    found[epoch.public.key_id] = opening
        return found

    def _bound(self, epoch: int) -> bytes:
        """Return the context of a grant: it cannot be moved to another group or epoch."""
        return canonical(KeyContext(f"group {epoch}", f"group:{self.name}"))

    # -- the document ----------------------------------------------------------------------------------------------

    def document(self) -> dict[str, Any]:
        """Return it for `issue`, with destination ``group:NAME``."""
        return {
            "group": self.name,
            "version": self.version,
            "members": {name: key.to_pem().decode() for name, key in self.members.items()},
            "epochs": [
                {
                    "public_key": epoch.public.to_pem().decode(),
                    "grants": {n: base64.b64encode(w).decode() for n, w in epoch.grants.items()},
                }
                for epoch in self.epochs
            ],
        }

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Group:
        """Read what `document` gave.

        Raises:
            ConfigError: It is none.
        """
        try:
            members = {n: RecipientKey.from_pem(pem, name=n) for n, pem in document["members"].items()}
            epochs = tuple(
                Epoch(
                    number,
                    RecipientKey.from_pem(entry["public_key"]),
                    {n: base64.b64decode(w, validate=True) for n, w in entry["grants"].items()},
                )
                for number, entry in enumerate(document["epochs"], 1)
            )
            name, version = str(document["group"]), int(document["version"])
        except (KeyError, TypeError, AttributeError, binascii.Error):
            raise ConfigError("this is no document of a group") from None
        if not epochs or any(epoch.public.kind not in _KINDS for epoch in epochs):
            raise ConfigError("this is no document of a group: it has no key")
        return cls(name, version, _checked(members), epochs, str(document.get("issued_by", "")))


def _checked(members: Mapping[str, RecipientKey]) -> Mapping[str, RecipientKey]:
    if not 1 <= len(members) <= _MOST_MEMBERS:
        raise ConfigError(f"a group has 1 to {_MOST_MEMBERS} members, not {len(members)}")
    if len(set(members.values())) != len(members):
        raise ConfigError("two members of the group have one key")
    return {check_name(name, "a member's name"): key for name, key in members.items()}


class GroupKeys:
    """Key provider on a group: wraps for its key in force, unwraps with what a member was granted.

    Args:
        fetch: Where the group's signed document is.
        name: Of the group.
        issuers: Public keys of who may introduce members. A producer and a member need them alike.
        open_with: The member's private key, or several; none for a producer.
        **options: As for `directory.Published`: ``at_least``, ``refresh``, ``max_stale``.

    A message that was sealed for a key which is not known yet has the document fetched again, at most once a second.

    Raises:
        ConfigError: The document is refused.
        KeyUnavailable: It cannot be had.
    """

    def __init__(
        self,
        fetch: Fetch,
        *,
        name: str,
        issuers: KeyRing,
        open_with: Iterable[OpeningKey] = (),
        random: RandomBytes = crypto.random_bytes,
        **options: Any,
    ) -> None:
        self._name, self._own, self._random = name, tuple(open_with), random
        self._published = Published(
            fetch, destination=f"group:{name}", issuers=issuers, parse=self._parsed, **options
        )

    def __repr__(self) -> str:
        return f"<GroupKeys {self._name!r}>"

    def __reduce__(self) -> str:
        raise TypeError("a key is not for pickling")

    @property
    def public_key_fingerprints(self) -> frozenset[bytes]:
        """Those of the member's own keys: see `PublicKeyRecipients`."""
        return frozenset(key.public.fingerprint for key in self._own)

    @property
    def group(self) -> Group:
        """As it is known now."""
        return self._published.current()[0]

    def generate(self, context: KeyContext) -> NewDataKey:
        """Make a data key from the operating system's randomness, and wrap it for the group."""
        data_key = self._random(DATA_KEY_SIZE)
        return NewDataKey(data_key, self.wrap(data_key, context))

    def wrap(self, data_key: bytes, context: KeyContext) -> tuple[Recipient, ...]:
        """Wrap *data_key* for the group's key in force."""
        public = self.group.public
        wrapped = public.wrap(data_key, canonical(context), random=self._random)
        return (Recipient(public.algorithm, public.key_id, wrapped),)

    def unwrap(self, recipients: Sequence[Recipient], context: KeyContext) -> bytes:
        """Unwrap with the key of whichever epoch one of *recipients* names.

        Raises:
            NotMine: None names a key that this member was granted.
        """
        if not self._own:
            raise NotMine("this process is no member: it only seals")
        _, keys = self._published.current()
        if not _named(recipients, keys) and any(map(_could_be_ours, recipients)):
            _, keys = self._published.renewed()
        return first_that_opens(
            (
                partial(key.unwrap, recipient.wrapped_key, canonical(context))
                for recipient, key in _named(recipients, keys)
            ),
            f"no recipient is of a key of group {self._name!r} that was granted here",
        )

    def _parsed(self, document: Mapping[str, Any]) -> tuple[Group, dict[bytes, OpeningKey]]:
        group = Group.of(document)
        if group.name != self._name:
            raise ConfigError(f"the document is of group {group.name!r}, not of {self._name!r}")
        return group, group.opening_keys(self._own)


def _could_be_ours(recipient: Recipient) -> bool:
    return recipient.algorithm in _ALGORITHMS and len(recipient.key_id) == KEY_ID_SIZE


def _named(
    recipients: Sequence[Recipient], keys: Mapping[bytes, OpeningKey]
) -> list[tuple[Recipient, OpeningKey]]:
    return [
        (recipient, key)
        for recipient in recipients
        if (key := keys.get(recipient.key_id)) is not None and recipient.algorithm == key.public.algorithm
    ]
