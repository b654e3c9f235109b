"""Keys of a signer with ``algorithm = "x509"``: certificates that sign, and authorities that are trusted."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from postseal.core.config._kinds import (
    Duration,
    FileName,
    Flag,
    Listed,
    Option,
    PathRef,
    Schema,
    Text,
    Word,
    a_kind_of,
    name_of,
)
from postseal.core.config._report import At
from postseal.core.config._secrets import Secret, read_file
from postseal.core.config._signing import SigningAlgorithm, check_passphrase, key_table, life_of
from postseal.core.context import check_name
from postseal.core.errors import ConfigError
from postseal.core.signing import AnyKey

__all__ = ["X509"]

_SIGNS: Final = ("certificate", "private_key", "passphrase", "carry", "senders")
_VERIFIES: Final = ("roots", "names", "known", "lists", "ocsp", "on_stale", "max_age")


class Source(Text):
    """A file that is read again while it is in use, or an address from which it is fetched."""

    def __init__(self) -> None:
        super().__init__("the path of a file, or an address", schema={"minLength": 1})

    def read(self, value: object, at: At) -> Any:
        """Return the address, or a reference to the file."""
        found = super().read(value, at)
        if found == "":
            at.wrong(f"{name_of(at)} is empty: it must be {self.words}")
            return None
        if found is None or re.match(r"https?://[^/\s@]+/", found):
            return found
        if "://" in found:
            at.wrong(f"{name_of(at)} is {found!r}: neither the path of a file nor https://HOST/...")
            return None
        return PathRef(found)


class Names:
    """For each sender the names that its certificate must have."""

    words = "a table: for each sender a list of names"

    def read(self, value: object, at: At) -> dict[str, list[str]] | None:
        """Return the names by sender."""
        if not isinstance(value, dict):
            at.wrong(
                f'names must be a table, not {a_kind_of(value)}: names = {{ billing-api = ["CN=billing-api", "O=Shop"] }}'
            )
            return None
        if not value:
            at.wrong("names is empty: nobody's certificate would be accepted")
            return None
        found: dict[str, list[str]] = {}
        for sender, names in value.items():
            try:
                check_name(sender, "a sender")
            except ConfigError as error:
                (at / sender).wrong(str(error), key=True)
            if (read := _NAMES.read(names, at / sender)) is not None:
                found[sender] = read
        return found

    def schema(self) -> Schema:
        """Say that it is a table of lists."""
        return {"type": "object", "minProperties": 1, "additionalProperties": _NAMES.schema()}


def _name(name: str) -> str:
    from postseal.core.certified import check_demand  # noqa: PLC0415 - loaded by who has certificates

    check_demand(name)
    return name


_NAMES: Final = Listed(Text("a name", check=_name), empty="any certificate would do for that sender")


def _responder(url: str) -> str:
    if re.match(r"https?://[^/\s@]+", url) is None:
        raise ConfigError(f"{url!r} is no address of a responder: http://HOST[/...]")
    return url


def _make(options: Mapping[str, Any], _sender: str | None) -> AnyKey:
    from postseal.core.certified import X509Key, X509Roots  # noqa: PLC0415 - likewise

    if "roots" not in options:
        return X509Key(
            options["id"],
            certificate=options["certificate"].content,
            private_key=options["private_key"],
            password=options.get("passphrase"),
            senders=options["senders"],
            carry=options.get("carry", True),
            **life_of(options),
        )
    from postseal.core.providers.revocations import ListsFrom, OcspFrom  # noqa: PLC0415 - likewise

    more: dict[str, Any] = {name: options[name] for name in ("on_stale", "max_age") if name in options}
    if "known" in options:
        more["known"] = options["known"].content
    if "lists" in options:
        _check_lists(options["lists"])
        more["lists"] = ListsFrom(options["lists"])
    if "ocsp" in options:
        more["ocsp"] = OcspFrom(options["ocsp"])
    return X509Roots(
        options["id"], roots=options["roots"].content, senders=options["names"], **more, **life_of(options)
    )


def _check_lists(sources: list[Path | str]) -> None:
    """See that the lists which are files can be read now."""
    from postseal.core.revocation import Lists  # noqa: PLC0415 - likewise

    for source in sources:
        if isinstance(source, Path):
            Lists.read([read_file(source)], f"lists: {str(source)!r}")


def _check(given: Mapping[str, Any], at: At) -> None:
    """See that a key either signs or verifies, and has what that takes."""
    there = {X509.key.meant(name) for name in given}  # what is misspelt was told
    forms = [form for form in ("certificate", "roots") if form in there]
    if len(forms) != 1:
        at.wrong(
            "a key takes either certificate, to sign with, or roots, to verify with"
            + ("" if forms else ", and has neither")
        )
        return
    (form,) = forms
    needed, others = {
        "certificate": (
            {"private_key": 'private_key = { file = "..." }', "senders": "whose certificate is it?"},
            _VERIFIES,
        ),
        "roots": ({"names": "how are certificates of its senders named?"}, _SIGNS),
    }[form]
    for option, why in needed.items():
        if option not in there:
            at.wrong(f"a key with {form} has no {option}: {why}", key=True)
    for option in others:
        if option in given and option not in needed and option != "passphrase":
            hint = "; the senders are those of names" if option == "senders" else ""
            (at / option).wrong(f"{option} says nothing of a key with {form}{hint}", key=True)
    check_passphrase(given, at)
    if not {"lists", "ocsp"} & given.keys() and "on_stale" in given:
        (at / "on_stale").wrong("on_stale says nothing without lists or ocsp", key=True)


X509: Final = SigningAlgorithm(
    key_table(
        "a key of algorithm 'x509'",
        Option(
            "certificate",
            FileName("the path of a PEM file"),
            "PEM file of a certificate to sign with, followed by those that lead towards the root, without the root.",
        ),
        Option("private_key", Secret(binary=False), "PEM of its private key: Ed25519, or on P-256."),
        Option("passphrase", Secret(binary=False), "Of an encrypted private key."),
        Option(
            "carry",
            Flag(),
            "Whether messages carry the certificates; else who verifies must have them in `known`.",
            default=True,
        ),
        Option(
            "roots",
            FileName("the path of a PEM file"),
            "PEM file of the authorities that are trusted, to verify with. No others are.",
        ),
        Option(
            "names",
            Names(),
            "For each sender the names that its certificate must have, all of them: `CN=`, `O=`, `OU=` ..., `DNS:`, `URI:`, `EMAIL:`.",
        ),
        Option(
            "known",
            FileName("the path of a PEM file"),
            "Certificates that messages need not carry.",
        ),
        Option(
            "lists",
            Listed(Source(), empty="leave it out where nothing is looked at"),
            "Revocation lists: paths of files, or addresses. Each is read or fetched again within `max_age`.",
        ),
        Option(
            "ocsp",
            Text("an address", check=_responder),
            "Address of an OCSP responder, asked about each signer's certificate.",
        ),
        Option(
            "on_stale",
            Word("wait", "accept"),
            "Where no list or response is at hand: `wait` keeps messages, `accept` goes on with what is known.",
            default="wait",
        ),
        Option(
            "max_age",
            Duration(most=86_400),
            "When a certificate is looked at again: **the revocation window**.",
            default="5m",
        ),
        senders=None,
        doc="Who signs with the certificate.",
    ),
    _make,
    check=_check,
)
