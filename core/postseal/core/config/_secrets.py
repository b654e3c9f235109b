"""Secrets by reference: from the environment, a file, AWS Secrets Manager or Azure Key Vault; never from the policy file itself."""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, Literal, NamedTuple, TypeAlias, get_args

from postseal.core.config._kinds import Option, Schema, Table, Text, Word, a_kind_of, name_of
from postseal.core.config._report import At
from postseal.core.errors import ConfigError, nearest
from postseal.core.providers.clients import AZURE_SECRET

__all__ = ["Encoding", "Secret", "SecretRef", "Secrets", "read_file"]

Encoding: TypeAlias = Literal["base64", "hex", "raw"]
_SOURCES: Final = ("env", "file", "aws-secret", "azure-secret")
_HEX: Final = re.compile(r"(?:[0-9a-fA-F]{2})+")
_BASE64: Final = re.compile(r"[A-Za-z0-9+/_-]+={0,2}")


class SecretRef(NamedTuple):
    """Where a secret is.

    Attributes:
        source: One of env, file, aws-secret, azure-secret.
        name: What it is called there.
        encoding: How its bytes are written there; None where that was not said.
        field: Which member of a JSON object it is, where it is one.
        region: Of AWS; None for the client's own.
        version: Stage or version; None for the newest.
        path: Where the file speaks of it.
    """

    source: str
    name: str
    encoding: Encoding | None
    field: str | None
    region: str | None
    version: str | None
    path: tuple[str | int, ...]

    def __str__(self) -> str:
        return f"{self.source} {self.name}"


class Secret:
    """A reference to a secret, in a table with one of env, file, aws-secret, azure-secret.

    Args:
        binary: Whether it is bytes, which have an encoding; else it is text, or PEM.
    """

    def __init__(self, *, binary: bool = True) -> None:
        self._binary = binary
        self.words = "a reference to a secret: `{ env = ... }`, `{ file = ... }`, `{ aws-secret = ... }`, `{ azure-secret = ... }`"
        options = [
            Option("env", Text("the name of a variable"), "Name of the environment variable that holds it."),
            Option(
                "file",
                Text("the path of a file"),
                "File that holds it, from the folder of the policy file; closed to other users.",
            ),
            Option("aws-secret", Text("a name or ARN"), "Name or ARN in AWS Secrets Manager."),
            Option(
                "azure-secret",
                Text("https://VAULT/secrets/NAME"),
                "Identifier in Azure Key Vault, with or without a version.",
            ),
            Option("field", Text(), "Member of the JSON object that the secret is, where it is one."),
            Option("region", Text(), "Region of AWS Secrets Manager, where no ARN says it."),
            Option(
                "version", Text(), "Stage of AWS Secrets Manager, like AWSPREVIOUS.", default="AWSCURRENT"
            ),
        ]
        if binary:
            options.append(
                Option(
                    "encoding",
                    Word(*get_args(Encoding)),
                    "How its bytes are written there. `raw`: as they are.",
                    default="base64",
                )
            )
        self._table = Table(*options, what="a reference to a secret")

    def read(self, value: object, at: At) -> SecretRef | None:
        """Return the reference."""
        if not isinstance(value, dict):
            at.wrong(
                f"{name_of(at)} must be a reference, not {a_kind_of(value)}: a secret never stands in the policy file; "
                f'write {name_of(at)} = {{ env = "NAME" }}, or file, aws-secret, azure-secret'
            )
            return None
        found = self._table.read(value, at)
        sources = [source for source in _SOURCES if source in value]
        if found is None or not all(source in found for source in sources):
            return None
        if len(sources) != 1:
            if len(found) == len(value):  # else that was told
                at.wrong(f"{name_of(at)} must name one source of the secret: {', '.join(_SOURCES)}")
            return None
        (source,) = sources
        for option, only in (
            ("field", ("aws-secret", "azure-secret")),
            ("region", ("aws-secret",)),
            ("version", ("aws-secret",)),
        ):
            if option in found and source not in only:
                (at / option).wrong(f"{option} says nothing of a secret from {source}", key=True)
        name = found[source]
        if not name:
            (at / source).wrong(f"{source} is empty")
            return None
        if source == "azure-secret" and AZURE_SECRET.fullmatch(name) is None:
            (at / source).wrong(f"azure-secret must be https://VAULT/secrets/NAME, not {name!r}")
            return None
        return SecretRef(
            source,
            name,
            found.get("encoding"),
            found.get("field"),
            found.get("region"),
            found.get("version"),
            at.path,
        )

    def schema(self) -> Schema:
        """Say that one of the sources is needed."""
        return {**self._table.schema(), "oneOf": [{"required": [source]} for source in _SOURCES]}


class Secrets:
    """Gets secrets, each once.

    Args:
        folder: Where relative paths begin.
        environ: The environment.
        fetch: Gets what a store in the cloud holds, by reference; for tests.
    """

    def __init__(
        self,
        folder: Path,
        environ: Mapping[str, str] = os.environ,
        fetch: Callable[[SecretRef], str | bytes] | None = None,
    ) -> None:
        self._folder = folder
        self._environ = environ
        self._fetch = fetch or _fetch
        self._got: dict[SecretRef, str | bytes] = {}
        self.files: set[Path] = set()
        """Files that were read, to be watched."""

    def content(self, ref: SecretRef) -> bytes:
        """Return what is there as it is, but for blanks around text.

        Raises:
            ConfigError: There is none.
        """
        found = self._raw(ref)
        return found.strip() if isinstance(found, bytes) else found.strip().encode()

    def binary(self, ref: SecretRef) -> bytes:
        """Return the bytes that are written there in the encoding that the reference says, base64 by default.

        Raises:
            ConfigError: There are none, or they are written otherwise.
        """
        found = self._raw(ref)
        if ref.encoding == "raw":
            return found.encode() if isinstance(found, str) else found
        try:
            text = (found if isinstance(found, str) else found.decode("ascii")).strip()
        except UnicodeDecodeError:
            raise ConfigError(f"{ref} is no text: say encoding = 'raw'") from None
        if ref.encoding == "hex":
            if _HEX.fullmatch(text) is None:
                raise ConfigError(f"{ref} is not hex, as encoding says")
            return binascii.unhexlify(text)
        if ref.encoding is None and _HEX.fullmatch(text) is not None:
            raise ConfigError(f"{ref} could be hex or base64: say encoding = 'hex' or encoding = 'base64'")
        if _BASE64.fullmatch(text) is None or len(text.rstrip("=")) % 4 == 1:
            raise ConfigError(f"{ref} is not base64; say its encoding: 'hex', or 'raw' for bytes as they are")
        bare = text.rstrip("=").replace("-", "+").replace("_", "/")
        return base64.b64decode(bare + "=" * (-len(bare) % 4))

    def file(self, name: str) -> bytes:
        """Return what a file holds that is no secret.

        Raises:
            ConfigError: There is none.
        """
        path = self.path(name)
        self.files.add(path)
        return read_file(path)

    def path(self, name: str) -> Path:
        """Return the path of the file of that *name*."""
        return self._folder / Path(name).expanduser()

    def _raw(self, ref: SecretRef) -> str | bytes:
        key = ref._replace(encoding=None, path=())
        if key not in self._got:
            self._got[key] = self._get(ref)
        found = self._got[key]
        if not found:
            raise ConfigError(f"{ref} is empty")
        return found

    def _get(self, ref: SecretRef) -> str | bytes:
        if ref.source == "env":
            if ref.name not in self._environ:
                near = nearest(ref.name, [name for name in self._environ if name[:3] == ref.name[:3]])
                hint = near if "did you mean" in near else ""  # not the whole environment
                raise ConfigError(f"the environment has no {ref.name}{hint}")
            return self._environ[ref.name]
        if ref.source == "file":
            path = self.path(ref.name)
            self.files.add(path)
            content = read_file(path)
            _check_closed(path)
            return content
        found = self._fetch(ref)
        return found if ref.field is None else _member(found, ref)


def read_file(path: Path) -> bytes:
    """Return what is in the file.

    Raises:
        ConfigError: It is not there, or not readable.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError:
        near = (
            nearest(path.name, [each.name for each in path.parent.iterdir()]) if path.parent.is_dir() else ""
        )
        raise ConfigError(f"there is no file {str(path)!r}{near if 'did you mean' in near else ''}") from None
    except OSError as error:
        raise ConfigError(f"{str(path)!r} cannot be read: {error.strerror}") from None


def _check_closed(path: Path) -> None:
    """Refuse a secret that any user of the machine may read or change."""
    if os.name != "posix":
        return
    mode = path.stat().st_mode
    if mode & (stat.S_IROTH | stat.S_IWOTH):
        raise ConfigError(f"{str(path)!r} holds a secret and is open to all users: chmod o-rw {path}")


def _member(found: str | bytes, ref: SecretRef) -> str:
    try:
        members = json.loads(found)
    except ValueError:
        members = None
    if not isinstance(members, dict):
        raise ConfigError(f"{ref} is no JSON object, so it has no field {ref.field!r}")
    member = members.get(ref.field)
    if not isinstance(member, str):
        raise ConfigError(f"{ref} has no text in field {ref.field!r}{nearest(str(ref.field), members)}")
    return member


def _fetch(ref: SecretRef) -> str | bytes:
    from postseal.core.providers import clients  # noqa: PLC0415 - loaded by who has secrets there

    if ref.source == "aws-secret":
        return clients.secret_of_aws(ref.name, region=ref.region, stage=ref.version)
    return clients.secret_of_azure(ref.name)
