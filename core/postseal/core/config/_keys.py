"""The section ``[keys.NAME]``: which key service wraps data keys, and how it is reached.

Each provider is one entry of `PROVIDERS`: the table that reads and documents its section, and the function that makes it. Its library is
loaded when it is made, so that only who uses a key service needs what it needs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from postseal.core.config._clients import (
    AWS,
    AZURE,
    AZURE_CREDENTIAL,
    azure_options,
    chosen,
    key_client,
    kms_arn,
    kms_client,
    of_this_process,
    url_of,
    versioned_key,
)
from postseal.core.config._kinds import (
    Count,
    Duration,
    FileName,
    Flag,
    Listed,
    Named,
    Option,
    Schema,
    StoreName,
    Table,
    Text,
    Word,
    a_kind_of,
    name_of,
    shown,
)
from postseal.core.config._report import At
from postseal.core.config._secrets import Secret
from postseal.core.errors import ConfigError, nearest
from postseal.core.forking import begin_again_in_child
from postseal.core.keys import KeyContext, KeyProvider, NewDataKey, Recipient
from postseal.core.providers import clients

if TYPE_CHECKING:
    from postseal.core.resilience import Limiter

__all__ = [
    "BREAKER",
    "GIVEN",
    "LIMIT",
    "OF_OTHERS",
    "PROVIDERS",
    "RESILIENCE",
    "RETRY",
    "KeysKind",
    "Made",
    "Material",
    "Provider",
    "made_resilient",
]

GIVEN: Final = "given"
"""The provider that the program hands in."""
_KMS_NAME: Final = re.compile(r"arn:[^:\s]+:kms:[^:\s]+:[^:\s]+:(?:key|alias)/[\w/-]+|alias/[\w/-]+|[\w-]+")
_VAULT_KEY: Final = re.compile(r"https://[A-Za-z0-9.-]+(?::\d+)?/keys/[A-Za-z0-9-]{1,127}/?")


class Material(NamedTuple):
    """What a section refers to, fetched.

    Attributes:
        options: The section's own, with the bytes in the place of references to secrets, and paths in the place of names of files.
        parts: Key providers that it names.
        name: Of the section.
    """

    options: Mapping[str, Any]
    parts: Sequence[KeyProvider] = ()
    name: str = ""


class Provider(NamedTuple):
    """One kind of key provider.

    Attributes:
        table: Its options.
        make: Makes it. Raises `ConfigError` or `MissingExtraError`.
        binary: Those of its secrets that are bytes in an encoding; all others are text.
    """

    table: Table
    make: Callable[[Material], KeyProvider]
    binary: frozenset[str] = frozenset()


# -- the providers -----------------------------------------------------------------------------------------------------


def _kms_key(name: str) -> str:
    if _KMS_NAME.fullmatch(name) is None:
        raise ConfigError(f"{shown(name)} is neither an ARN, an alias nor an id of a KMS key")
    return name


def _https(url: str) -> str:
    if not url_of(url).startswith("https://"):
        raise ConfigError(f"{shown(url)} must begin with https://")
    return url


def _azure_key(key: str) -> str:
    if _VAULT_KEY.fullmatch(key) is None:
        raise ConfigError(
            f"{shown(key)} is not https://VAULT/keys/NAME"
            + (
                ": leave the version away, the newest wraps"
                if re.fullmatch(r"https://[^/]+/keys/[^/]+/\w+/?", key)
                else ""
            )
        )
    return _https(key)


def _aws_kms(material: Material) -> KeyProvider:
    from postseal.core.providers.aws_kms import AwsKms  # noqa: PLC0415 - loaded by who uses it

    options = _with_tries(material.options)
    more = chosen(options, "also_open")
    return Made(lambda: AwsKms(kms_client(options, options["key_id"]), options["key_id"], **more))


def _with_tries(options: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return *options*, and one try for the client where each is to be seen from outside of it."""
    counted = "max_attempts" not in options and ("retry" in options or "limit" in options)
    return {**options, "max_attempts": 1} if counted else options


def _azure_key_vault(material: Material) -> KeyProvider:
    from postseal.core.providers.azure_key_vault import AzureKeyVault  # noqa: PLC0415 - loaded by who uses it

    options = material.options
    vault, _, key = options["key"].rstrip("/").rpartition("/keys/")
    more = chosen(options, "also_open", "refresh") | azure_options(_with_tries(options))

    def make() -> KeyProvider:
        credential = clients.azure_credential(options.get("credential", "default"), options.get("client_id"))
        return AzureKeyVault.connect(vault, key, credential, **more)

    return Made(make)


def _vault(material: Material) -> KeyProvider:
    from postseal.core.providers.vault import VaultTransit  # noqa: PLC0415 - loaded by who uses it

    options = material.options
    more = chosen(options, "mount_point", "derived", "cluster", "also_open")
    reached = chosen(options, "namespace", "timeout")
    if "connection_verify" in options:
        reached["authority"] = str(options["connection_verify"])

    def make() -> KeyProvider:
        client = clients.vault_client(options["url"], options["token"].decode(), **reached)
        return VaultTransit(client, options["key"], **more)

    return Made(make)


def _public_key(material: Material) -> KeyProvider:
    from postseal.core.providers.public_key import PublicKeyRecipients  # noqa: PLC0415 - loaded by who uses it
    from postseal.core.publickeys import OpeningKey, RecipientKey  # noqa: PLC0415

    certificate, private, roots = (
        material.options.get(name) for name in ("certificate", "private_key", "roots")
    )
    if certificate is None and private is None:
        raise ConfigError("it needs a certificate to wrap for, or a private_key to open with")
    if roots is not None and certificate is None:
        raise ConfigError("roots vouch for a certificate, and there is none")
    recipients, open_with = [], []
    if certificate is not None:
        authorities = None if roots is None else roots.content
        recipients.append(
            RecipientKey.from_pem(certificate.content, roots=authorities, name=certificate.path.name)
        )
    if private is not None:
        read = OpeningKey.from_pem if b"-----BEGIN" in private else OpeningKey.from_pkcs12
        open_with.append(read(private, material.options.get("password"), name="private_key"))
    return PublicKeyRecipients(recipients, open_with=open_with)


def _aws_kms_public_key(material: Material) -> KeyProvider:
    from postseal.core.providers.aws_kms_recipients import AwsKmsRsaKey  # noqa: PLC0415 - loaded by who uses it

    options = _with_tries(material.options)

    def make(arn: str) -> AwsKmsRsaKey:
        return AwsKmsRsaKey(of_this_process(lambda: kms_client(options, arn)), arn)

    return _in_service(options, make)


def _azure_public_key(material: Material) -> KeyProvider:
    from postseal.core.providers.azure_recipients import AzureRsaKey  # noqa: PLC0415 - loaded by who uses it

    options = _with_tries(material.options)

    def make(key: str) -> AzureRsaKey:
        vault = key.partition("/keys/")[0]
        return AzureRsaKey(of_this_process(lambda: key_client(options, vault)), key)

    return _in_service(options, make)


def _in_service(options: Mapping[str, Any], make: Callable[[str], Any]) -> KeyProvider:
    """Make the provider that wraps for `keys` and opens with `open_with`, each key made by *make* of its name."""
    from postseal.core.providers.public_key import PublicKeyRecipients  # noqa: PLC0415 - likewise
    from postseal.core.providers.service_recipients import ServiceRecipients  # noqa: PLC0415

    to, opening = options.get("keys", ()), options.get("open_with", ())
    if not to and not opening:
        raise ConfigError("it needs keys to wrap for, or open_with to open")
    more = chosen(options, "refresh", "max_stale")
    source = ServiceRecipients(map(make, to), **more) if to else ()
    return PublicKeyRecipients(source, open_with=map(make, opening))


def _local(material: Material) -> KeyProvider:
    from postseal.core.providers.local import UnsafeLocalKeys  # noqa: PLC0415 - loaded by who uses it

    return UnsafeLocalKeys.from_file(material.options["file"])


def _combined(material: Material) -> KeyProvider:
    from postseal.core.providers.combined import CombinedKeys  # noqa: PLC0415 - loaded by who uses it

    return CombinedKeys(material.parts, hedge=material.options.get("hedge"), name=material.name)


def _branch(material: Material) -> KeyProvider:
    from postseal.core.providers.branch import BranchKeys  # noqa: PLC0415 - loaded by who uses it
    from postseal.core.providers.branch_stores import DynamoBranches, SqliteBranches  # noqa: PLC0415 - likewise
    from postseal.core.providers.combined import CombinedKeys  # noqa: PLC0415 - likewise

    options, parts = material.options, material.parts
    inner = parts[0] if len(parts) == 1 else CombinedKeys(parts)
    ages = {name: options[name] for name in ("max_age", "max_stale") if name in options}
    if ("path" in options) == ("table" in options):
        raise ConfigError("it is kept in one store: path, of a file of this machine, or table, of DynamoDB")

    def make() -> KeyProvider:
        if "path" in options:
            return BranchKeys(inner, SqliteBranches(options["path"]), options["branch"], **ages)
        place: dict[str, Any] = {name: options.get(name) for name in _AWS_PLACE}
        client = clients.aws_client("dynamodb", **place)
        return BranchKeys(inner, DynamoBranches(client, options["table"]), options["branch"], **ages)

    return Made(make)


def _given(material: Material) -> KeyProvider:
    raise ConfigError(
        f"provider = {material.options['provider']!r}: the program hands in no key provider of that name"
    )


RETRY: Final = Table(
    Option("attempts", Count(1, 10), "Tries in all, at most.", default=3),
    Option(
        "first_wait",
        Duration(most=60),
        "Between the first try and the second: any time up to this. It doubles with each.",
        default="100ms",
    ),
    Option("max_wait", Duration(most=60), "The most that it becomes.", default="2s"),
    Option(
        "budget",
        Count(0, 100),
        "Further tries for a hundred calls that were answered, in the long run.",
        default=20,
    ),
    what="retry",
)
BREAKER: Final = Table(
    Option(
        "failures", Count(1, 10_000), "Tries without an answer, one after another, that open it.", default=5
    ),
    Option(
        "wait",
        Duration(most=3600),
        "How long nobody asks then, but for one that finds out. It doubles each time that there is no answer.",
        default="2s",
    ),
    Option("max_wait", Duration(most=3600), "The most that it becomes.", default="30s"),
    what="breaker",
)
LIMIT: Final = Table(
    Option(
        "calls",
        Count(1, 1_000_000),
        "How many calls this process may make. Its share, where several use the quota.",
        required='what is the quota? limit = { calls = 400, per = "10s" }',
    ),
    Option(
        "per",
        Duration(most=3600),
        "In which time.",
        required='in which time? limit = { calls = 400, per = "10s" }',
    ),
    Option(
        "max_wait",
        Duration(most=3600),
        "How long a call may wait for its turn, before the message goes back.",
        default="30s",
    ),
    Option(
        "shared",
        Text("a name of your own"),
        "Keys that name the same share one quota, as keys of one vault or one account do.",
    ),
    what="limit",
)
"""docs/resilience.md."""
_RESILIENCE: Final = (
    Option(
        "retry",
        RETRY,
        "Ask again where there is no answer; in the place of the client's own tries. `{}` for the defaults.",
    ),
    Option(
        "deadline",
        Duration(most=600),
        "How long one try may take, however long the client's own timeouts are.",
    ),
    Option("breaker", BREAKER, "Leave it alone for a while where it does not answer. `{}` for the defaults."),
    Option("limit", LIMIT, "Keep under its quota."),
)

RESILIENCE: Final = frozenset(option.name for option in _RESILIENCE)
_TIMEOUTS: Final = (
    Option(
        "connect_timeout",
        Duration(most=60),
        "How long a connection may take to be made. Messages wait for it.",
        default="2s",
    ),
    Option("read_timeout", Duration(most=60), "How long an answer may take.", default="5s"),
    Option(
        "max_attempts",
        Count(1, 10),
        "How often the client makes a call, at most. 1 where there is a `retry` or a `limit`.",
        default=3,
    ),
    *_RESILIENCE,
)


def _table(name: str, *options: Option) -> Table:
    word = Option("provider", Word(name), "Which key service.", required="which key service is it?")
    return Table(word, *options, what=f"a key of provider {name!r}", elsewhere=_ELSEWHERE)


def _keys_in_service(key: Text, what: str) -> tuple[Option, ...]:
    return (
        Option(
            "keys",
            Listed(key, empty="leave it out where nothing is sealed"),
            f"{what}, to wrap for: public keys are fetched, and each opens alone.",
        ),
        Option(
            "open_with",
            Listed(key, empty="leave it out where nothing is opened"),
            f"{what}, to open with: one call for each data key.",
        ),
        Option(
            "refresh",
            Duration(),
            "How long a fetched public key wraps, before it is looked at again.",
            default="5m",
        ),
        Option(
            "max_stale",
            Duration(zero=True),
            "How long past that it goes on while the service does not answer.",
            default="1d",
        ),
    )


_ELSEWHERE: Final = {
    "max_age": "data_key or opening of a [[policy]]",
    "max_messages": "data_key of a [[policy]]",
    "max_stale": "data_key or opening of a [[policy]]",
    "destinations": "a [[policy]]",
    "protection": "a [[policy]]",
    "secret": "the keys of a [signers.NAME]",
    "hedge": "a key of provider 'combined'",
    "attempts": "retry = { ... }",
    "failures": "breaker = { ... }",
    "calls": "limit = { ... }",
}

OF_OTHERS: Final = ("combined", "branch")
"""Providers whose `keys` are names of other sections."""
_AWS_PLACE: Final = ("region", "profile", "endpoint_url")

PROVIDERS: Final[dict[str, Provider]] = {
    "aws-kms": Provider(
        _table(
            "aws-kms",
            Option(
                "key_id",
                Text("the ARN of a KMS key", check=_kms_key),
                "The symmetric key that wraps, best by its ARN; an alias is asked for once.",
                required='which key wraps? key_id = "arn:aws:kms:REGION:ACCOUNT:key/ID"',
            ),
            Option(
                "also_open",
                Listed(Text("an ARN", check=kms_arn)),
                "ARNs of keys that may unwrap and do not wrap: rotated-out ones.",
            ),
            *AWS,
            *_TIMEOUTS,
        ),
        _aws_kms,
    ),
    "azure-key-vault": Provider(
        _table(
            "azure-key-vault",
            Option(
                "key",
                Text("https://VAULT/keys/NAME", check=_azure_key),
                "The key that wraps: https://VAULT/keys/NAME, without a version.",
                required='which key wraps? key = "https://VAULT.vault.azure.net/keys/NAME"',
            ),
            Option(
                "also_open",
                Listed(Text("a name")),
                "Further keys of the same vault that may unwrap and do not wrap.",
            ),
            *AZURE_CREDENTIAL,
            Option(
                "refresh",
                Duration(),
                "How long a fetched public key wraps: a new version is used within this.",
                default="5m",
            ),
            *AZURE,
            *_TIMEOUTS,
        ),
        _azure_key_vault,
    ),
    "vault": Provider(
        _table(
            "vault",
            Option(
                "url",
                Text("an address", check=url_of),
                "Address of Vault or OpenBao.",
                required='where is it? url = "https://HOST:8200"',
            ),
            Option(
                "key",
                Text("a name"),
                "Key of the transit engine that wraps.",
                required="which key of the transit engine wraps?",
            ),
            Option(
                "token",
                Secret(binary=False),
                "Token of this process. Vault Agent keeps one in a file.",
                required='token = { file = "..." }',
            ),
            Option("mount_point", Text("a path"), "Where the transit engine is mounted.", default="transit"),
            Option("namespace", Text("a namespace"), "Of Vault Enterprise and OpenBao."),
            Option("derived", Flag(), "Whether the key was made with derived=true.", default=False),
            Option(
                "also_open", Listed(Text("a name")), "Further keys there that may unwrap and do not wrap."
            ),
            Option(
                "cluster",
                Named("a name"),
                "A name of your own for this cluster; where two clusters wrap one message.",
            ),
            Option(
                "connection_verify",
                FileName(),
                "PEM file of certificate authorities, where they are not the system's.",
            ),
            Option("timeout", Duration(most=60), "How long an answer may take.", default="5s"),
            *_RESILIENCE,
        ),
        _vault,
    ),
    "public-key": Provider(
        _table(
            "public-key",
            Option(
                "certificate",
                FileName("the path of a certificate or a public key"),
                "PEM file of the recipient to wrap for: its certificate, followed by those towards a root, or its bare public key.",
            ),
            Option(
                "roots",
                FileName("the path of a PEM file"),
                "Authorities that must vouch for the certificate. Without them, this very certificate is trusted.",
            ),
            Option(
                "private_key",
                Secret(binary=False),
                "Private key to open with, in PEM. A process that only seals has none.",
            ),
            Option("password", Secret(binary=False), "Password of the private key, where it has one."),
        ),
        _public_key,
    ),
    "aws-kms-public-key": Provider(
        _table(
            "aws-kms-public-key",
            *_keys_in_service(Text("an ARN", check=kms_arn), "ARNs of RSA keys"),
            *AWS,
            *_TIMEOUTS,
        ),
        _aws_kms_public_key,
    ),
    "azure-key-vault-public-key": Provider(
        _table(
            "azure-key-vault-public-key",
            *_keys_in_service(
                Text("https://VAULT/keys/NAME/VERSION", check=versioned_key),
                "RSA keys with their versions, https://VAULT/keys/NAME/VERSION",
            ),
            *AZURE_CREDENTIAL,
            *AZURE,
            *_TIMEOUTS,
        ),
        _azure_public_key,
    ),
    "local": Provider(
        _table(
            "local",
            Option(
                "file",
                FileName("the path of a key file"),
                "Key file made by `UnsafeLocalKeys.create_file`. **Unsafe**: for development and tests.",
                required='file = "keys.toml"',
            ),
        ),
        _local,
    ),
    "combined": Provider(
        _table(
            "combined",
            Option(
                "keys",
                Listed(Text("a name"), empty="it must name at least one of [keys]"),
                "Names of other [keys]; all wrap, any opens. The nearest first.",
                required='which? keys = ["main", "archive"]',
            ),
            Option(
                "hedge",
                Duration(zero=True, most=60),
                "How long one may be silent, before the next is asked beside it to open a message. "
                "Without it, the next is asked when the one before has given up.",
            ),
        ),
        _combined,
    ),
    "branch": Provider(
        _table(
            "branch",
            Option(
                "keys",
                Listed(Text("a name"), empty="it must name at least one of [keys]"),
                "Names of other [keys], whose services wrap the branch key.",
                required='which key service wraps it? keys = ["main"]',
            ),
            Option("branch", Named("a branch"), "Which branch.", required='which? branch = "orders"'),
            Option("path", StoreName(), "SQLite file that keeps branch keys; made if it is not there."),
            Option("table", Text("a table"), "Table of DynamoDB that keeps them, instead."),
            *AWS,
            Option(
                "max_age",
                Duration(),
                "How long a branch key is used before the service is asked again: with that of `opening`, the revocation window.",
                default="1h",
            ),
            Option(
                "max_stale",
                Duration(zero=True),
                "How long past that, while the service or the store does not answer.",
                default="1h",
            ),
        ),
        _branch,
    ),
    GIVEN: Provider(_table(GIVEN, *_RESILIENCE), _given),
}
"""By the word of ``provider``."""


class KeysKind:
    """A section of ``[keys]``: its provider decides which options it has."""

    words = "a key provider"

    def read(self, value: object, at: At) -> dict[str, Any] | None:
        """Return its options."""
        if not isinstance(value, dict):
            at.wrong(f"keys.{name_of(at)} must be a table, not {a_kind_of(value)}: [keys.{name_of(at)}]")
            return None
        word = value.get("provider")
        if word is None:
            at.wrong(
                f"keys.{name_of(at)} has no provider: which key service is it? There are: {', '.join(PROVIDERS)}",
                key=True,
            )
            return None
        if not isinstance(word, str) or word not in PROVIDERS:
            (at / "provider").wrong(f"provider is {shown(word)}{nearest(str(word), PROVIDERS)}")
            return None
        found = PROVIDERS[word].table.read(value, at)
        if "retry" in value and "max_attempts" in value:
            (at / "max_attempts").wrong(
                f"keys.{at.path[-1]} has a retry and max_attempts: tries within tries; leave max_attempts away"
            )
        return found

    def schema(self) -> Schema:
        """Return one form for each provider."""
        return {
            "type": "object",
            "required": ["provider"],
            "oneOf": [each.table.schema() for each in PROVIDERS.values()],
        }


def made_resilient(
    name: str, provider: KeyProvider, options: Mapping[str, Any], limiter: Limiter | None
) -> KeyProvider:
    """Put around *provider* what the *options* of its section say."""
    if not RESILIENCE & options.keys():
        return provider
    from postseal.core.resilience import Breaker, Deadline, Limited, Retrying  # noqa: PLC0415 - for who wants it

    if "deadline" in options:
        provider = Deadline(provider, options["deadline"], name=name)
    if limiter is not None:
        provider = Limited(provider, limiter, name=name)
    if "breaker" in options:
        provider = Breaker(provider, **options["breaker"], name=name)
    if (retry := options.get("retry")) is not None:
        budget = {"budget": retry["budget"] / 100} if "budget" in retry else {}
        provider = Retrying(provider, **{**retry, **budget}, name=name)
    return provider


class Made:
    """A key provider on a client of our own, which a forked child makes anew: connections are not for sharing.

    Args:
        make: Makes it.
    """

    def __init__(self, make: Callable[[], KeyProvider]) -> None:
        self._make = make
        self._inner: KeyProvider | None = make()
        begin_again_in_child(self)

    def begin_again(self) -> None:
        """Forget the parent's client."""
        self._inner = None

    @property
    def inner(self) -> KeyProvider:
        """The provider of this process. Two threads that ask first at once may make two; either will do."""
        inner = self._inner
        if inner is None:
            inner = self._inner = self._make()
        return inner

    def __repr__(self) -> str:
        return repr(self.inner)

    def __getattr__(self, name: str) -> Any:
        # What only some providers have: `DirectKeys`.
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self.inner, name)

    def generate(self, context: KeyContext) -> NewDataKey:
        """Pass on."""
        return self.inner.generate(context)

    def wrap(self, data_key: bytes, context: KeyContext) -> tuple[Recipient, ...]:
        """Pass on."""
        return self.inner.wrap(data_key, context)

    def unwrap(self, recipients: Sequence[Recipient], context: KeyContext) -> bytes:
        """Pass on."""
        return self.inner.unwrap(recipients, context)
