"""How a client of a cloud is made of a section of the file: for keys that wrap, and for keys that sign."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from postseal.core.config._kinds import Count, Duration, FileName, Flag, Option, Text, Word, shown
from postseal.core.errors import ConfigError
from postseal.core.providers import clients

__all__ = [
    "AWS",
    "AZURE",
    "AZURE_CREDENTIAL",
    "KMS_ARN",
    "TIMEOUTS",
    "azure_options",
    "chosen",
    "key_client",
    "kms_arn",
    "kms_client",
    "of_this_process",
    "url_of",
    "versioned_key",
]

KMS_ARN: Final = re.compile(r"arn:[^:\s]+:kms:(?P<region>[^:\s]+):[^:\s]+:(?:key|alias)/[\w/-]+")

_VERSIONED: Final = re.compile(r"https://[A-Za-z0-9.-]+(?::\d+)?/keys/[A-Za-z0-9-]{1,127}/[0-9a-fA-F]{32}/?")


def url_of(url: str) -> str:
    """See that *url* is an address, with no secret in it."""
    if re.match(r"https?://[^/\s]+", url) is None:
        raise ConfigError(f"{shown(url)} is no address: https://HOST[:PORT]")
    if re.match(r"https?://[^/]*@", url) is not None:
        raise ConfigError("there is a password in it, and a secret never stands in the policy file")
    return url


def kms_arn(name: str) -> str:
    """See that *name* is the ARN of a key of AWS KMS."""
    match = KMS_ARN.fullmatch(name)
    if match is None or ":key/" not in name:
        raise ConfigError(f"{shown(name)} is not the ARN of a KMS key: arn:aws:kms:REGION:ACCOUNT:key/ID")
    return name


def versioned_key(key: str) -> str:
    """See that *key* is the identifier of a version of a key of Azure Key Vault."""
    if _VERSIONED.fullmatch(key) is None:
        raise ConfigError(
            f"{shown(key)} is not https://VAULT/keys/NAME/VERSION: name the version, each is a key of its own"
        )
    return key


TIMEOUTS: Final = (
    Option(
        "connect_timeout",
        Duration(most=60),
        "How long a connection may take to be made. Messages wait for it.",
        default="2s",
    ),
    Option("read_timeout", Duration(most=60), "How long an answer may take.", default="5s"),
    Option("max_attempts", Count(1, 10), "How often a call is made, at most.", default=3),
)
AWS: Final = (
    Option("region", Text("a region"), "Where no ARN says it, and the environment does not."),
    Option("profile", Text("a profile"), "Profile of the AWS configuration."),
    Option(
        "endpoint_url",
        Text("an address", check=url_of),
        "Another address than that of AWS: a VPC endpoint, an emulator.",
    ),
)
AZURE_CREDENTIAL: Final = (
    Option(
        "credential",
        Word("default", "managed-identity", "workload-identity", "environment", "cli"),
        "How the process proves who it is.",
        default="default",
    ),
    Option("client_id", Text("a client id"), "Of a user-assigned managed identity."),
)
AZURE: Final = (
    Option("api_version", Text("a version"), "Of the service's interface."),
    Option(
        "verify_challenge_resource",
        Flag(),
        "false for an emulator whose name is not that of a vault.",
        default=True,
    ),
    Option(
        "connection_verify",
        FileName(),
        "PEM file of certificate authorities, where they are not the system's.",
    ),
)


def chosen(options: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """Return those of *options* that are there."""
    return {name: options[name] for name in names if name in options}


def kms_client(options: Mapping[str, Any], key: str) -> Any:
    """Make a client of AWS KMS in the region of *key*, as `AWS` says."""
    arn = KMS_ARN.fullmatch(key)
    more = chosen(options, "profile", "endpoint_url", "connect_timeout", "read_timeout", "max_attempts")
    return clients.kms_client(region=options.get("region") or (arn["region"] if arn else None), **more)


def azure_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return what `AZURE` says as the SDK names it."""
    more = chosen(options, "api_version", "verify_challenge_resource", "read_timeout")
    if "connect_timeout" in options:
        more["connection_timeout"] = options["connect_timeout"]
    if "max_attempts" in options:
        more["retry_total"] = options["max_attempts"] - 1
    if "connection_verify" in options:
        more["connection_verify"] = str(options["connection_verify"])
    return more


def key_client(options: Mapping[str, Any], vault: str) -> Any:
    """Make a client of Azure Key Vault, as `AZURE_CREDENTIAL` and `AZURE` say."""
    credential = clients.azure_credential(options.get("credential", "default"), options.get("client_id"))
    return clients.key_client(vault, credential, **azure_options(options))


def of_this_process(make: Callable[[], Any]) -> Any:
    """Return what stands for the client that *make* makes, and is made anew in a forked child."""
    return clients.OfThisProcess(make)
