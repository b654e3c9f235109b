"""``postseal group``: who is a member of a group, in a signed document that producers and members read."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from postseal.core.cli._console import console, print_json, printable, sign_for
from postseal.core.errors import ConfigError, Refused

if TYPE_CHECKING:
    from postseal.core.groups import Group
    from postseal.core.publickeys import RecipientKey
    from postseal.core.signing import SigningKey

__all__ = ["app"]

app = typer.Typer(
    help="Make and change groups: one key to wrap for, which its members have. Who leaves cannot read what follows."
)

_File = Annotated[str, typer.Argument(metavar="FILE", help="The group's signed document.")]
_Members = Annotated[
    list[str], typer.Option("--member", help="NAME=FILE: a member and its public key or certificate.")
]
_Issuer = Annotated[str, typer.Option(help="Who introduces: the name that goes with the signing key.")]
_SignWith = Annotated[str, typer.Option(help="Private key of the issuer in PEM: Ed25519 or P-256.")]
_PasswordEnv = Annotated[
    str | None, typer.Option(help="The environment variable with the signing key's password.")
]
_Trust = Annotated[
    list[str] | None, typer.Option(help="ISSUER=FILE: public key in PEM of another who may have signed it.")
]
_Json = Annotated[bool, typer.Option("--json", help="One JSON object.")]
_ID: Final = 16


@app.command("create")
def create(
    file: _File,
    *,
    name: Annotated[str, typer.Option(help="Of the group.")],
    member: _Members,
    issuer: _Issuer,
    sign_with: _SignWith,
    password_env: _PasswordEnv = None,
    kind: Annotated[str, typer.Option(help="Of the group's key: x25519 or x-wing.")] = "x25519",
    as_json: _Json = False,
) -> None:
    """Make a group with its first members. Refuses to overwrite a file."""
    from postseal.core.groups import Group

    key = _signing_key(sign_with, issuer, password_env)
    if Path(file).exists():
        raise ConfigError(f"{file!r} is there already: use add and remove")
    members = dict(_named(entry) for entry in member)
    if len(members) != len(member):
        raise ConfigError("two members have one name")
    _write(file, Group.create(name, members, kind=kind), issuer, key, as_json)


@app.command("add")
def add(
    file: _File,
    *,
    member: Annotated[str, typer.Option(help="NAME=FILE: who joins, and its public key or certificate.")],
    issuer: _Issuer,
    sign_with: _SignWith,
    password_env: _PasswordEnv = None,
    current: Annotated[
        str | None,
        typer.Option(help="Private key of a member: who joins reads what the present key sealed, too."),
    ] = None,
    trust: _Trust = None,
    as_json: _Json = False,
) -> None:
    """Have another member. It reads what follows; with --current also what was sealed since the last change."""
    from postseal.core.publickeys import OpeningKey

    key = _signing_key(sign_with, issuer, password_env)
    group = _read(file, [(issuer, key), *_trusted(trust)])
    own = None if current is None else OpeningKey.from_file(current)
    _write(file, group.add(*_named(member), current=own), issuer, key, as_json)


@app.command("remove")
def remove(
    file: _File,
    *,
    member: Annotated[str, typer.Option(help="Who leaves.")],
    issuer: _Issuer,
    sign_with: _SignWith,
    password_env: _PasswordEnv = None,
    trust: _Trust = None,
    as_json: _Json = False,
) -> None:
    """Have one member less, and a new key that it does not have: it cannot read what producers seal from then on."""
    key = _signing_key(sign_with, issuer, password_env)
    group = _read(file, [(issuer, key), *_trusted(trust)])
    _write(file, group.remove(member), issuer, key, as_json)


@app.command("show")
def show(
    file: _File,
    *,
    trust: Annotated[
        list[str], typer.Option(help="ISSUER=FILE: public key in PEM of who may have signed it.")
    ],
    as_json: _Json = False,
) -> None:
    """Show a group's members, once it is seen who signed it."""
    _tell(_read(file, _trusted(trust)), file, as_json)


# -- files -------------------------------------------------------------------------------------------------------------


def _read(file: str, issuers: list[tuple[str, SigningKey]]) -> Group:
    from postseal.core.directory import verify
    from postseal.core.groups import Group
    from postseal.core.signing import KeyRing

    content = _content(file)
    unverified_name = _destination(content, file)
    try:
        ring = KeyRing({key.id: key for _, key in issuers}.values())
        return Group.of(verify(content, destination=unverified_name, issuers=ring))
    except Refused as refused:
        raise ConfigError(f"{file!r}: {refused.verdict.value}: {refused.detail}") from None


def _destination(content: bytes, file: str) -> str:
    from postseal.core.wire import decode

    try:
        destination = decode(content).header.destination
    except Refused:
        raise ConfigError(f"{file!r} is no signed document") from None
    if not destination.startswith("group:"):
        raise ConfigError(f"{file!r} is no document of a group")
    return destination


def _write(file: str, group: Group, issuer: str, key: SigningKey, as_json: bool) -> None:
    from postseal.core.directory import issue

    content = issue(group.document(), destination=f"group:{group.name}", issuer=issuer, key=key)
    # Whole or not at all: producers may be reading it.
    beside = Path(f"{file}.new")
    try:
        beside.write_bytes(content)
        beside.replace(file)
    except OSError as error:
        raise ConfigError(f"{file!r} cannot be written: {error.strerror}") from None
    _tell(group._replace(issued_by=issuer), file, as_json)


def _tell(group: Group, file: str, as_json: bool) -> None:
    told: dict[str, Any] = {
        "group": group.name,
        "file": file,
        "version": group.version,
        "issued_by": group.issued_by,
        "key_id": group.public.key_id.hex(),
        "epoch": group.epochs[-1].number,
        "members": {name: key.key_id.hex() for name, key in group.members.items()},
    }
    if as_json:
        print_json(told)
        return
    out = console()
    who = printable(f"group {group.name}, version {group.version}, signed by {group.issued_by}")
    out.print(f"{sign_for(out, good=True)} {who}", markup=False)
    out.print(f"  key {told['key_id']}, epoch {told['epoch']}, of {group.public.kind}", markup=False)
    for name, key_id in told["members"].items():
        out.print(f"  {printable(name)}  {key_id}", markup=False)


def _named(entry: str) -> tuple[str, RecipientKey]:
    from postseal.core.publickeys import RecipientKey

    name, file = _split(entry)
    return name, RecipientKey.from_file(file)


def _split(entry: str) -> tuple[str, str]:
    name, equals, file = entry.partition("=")
    if not equals or not name or not file:
        raise ConfigError(f"this must be NAME=FILE: {entry!r}")
    return name, file


def _content(file: str) -> bytes:
    try:
        return Path(file).read_bytes()
    except OSError as error:
        raise ConfigError(f"{file!r} cannot be read: {error.strerror}") from None


# -- who signs ---------------------------------------------------------------------------------------------------------


def _signing_key(file: str, issuer: str, password_env: str | None) -> SigningKey:
    from cryptography.hazmat.primitives import serialization

    password = None if password_env is None else os.environ.get(password_env, "").encode()
    try:
        private: Any = serialization.load_pem_private_key(_content(file), password)
    except (ValueError, TypeError):
        raise ConfigError(f"{file!r} is no private key in PEM, or its password is another") from None
    return _key_of(private.public_key(), issuer, file, private_key=private)


def _trusted(entries: list[str] | None) -> list[tuple[str, SigningKey]]:
    from cryptography.hazmat.primitives import serialization

    keys = []
    for issuer, file in map(_split, entries or []):
        try:
            public = serialization.load_pem_public_key(_content(file))
        except ValueError:
            raise ConfigError(f"{file!r} is no public key in PEM") from None
        keys.append((issuer, _key_of(public, issuer, file, public_key=public)))
    return keys


def _key_of(public: Any, issuer: str, file: str, **part: Any) -> SigningKey:
    """Make a signing key whose id is the beginning of its fingerprint: whoever verifies names it so, too."""
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    from postseal.core.crypto import fingerprint
    from postseal.core.signing import Ed25519Key, Es256Key

    if isinstance(public, Ed25519PublicKey):
        kind: Any = Ed25519Key
    elif isinstance(public, EllipticCurvePublicKey) and isinstance(public.curve, SECP256R1):
        kind = Es256Key
    else:
        raise ConfigError(f"{file!r} is no key that signs here: Ed25519 or P-256")
    made: SigningKey = kind(fingerprint(public).hex()[:_ID], senders=[issuer], **part)
    return made
