"""Clients of key services and secret stores, made of plain options: for who names them in a file and has none to hand in.

Each library is loaded when a client of its own is made. Timeouts are short, because messages wait.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from postseal.core.errors import ConfigError, MissingExtraError
from postseal.core.forking import begin_again_in_child

if TYPE_CHECKING:
    import hvac
    from azure.core.credentials import TokenCredential

__all__ = [
    "AZURE_SECRET",
    "OfThisProcess",
    "aws_client",
    "azure_credential",
    "key_client",
    "kms_client",
    "secret_of_aws",
    "secret_of_azure",
    "table_client",
    "vault_client",
]

AZURE_SECRET: Final = re.compile(
    r"(?P<vault>https://[A-Za-z0-9.-]+(?::\d+)?)/secrets/(?P<name>[A-Za-z0-9-]+)(?:/(?P<version>[0-9a-f]+))?/?"
)
"""Identifier of a secret in Azure Key Vault."""
_SECRET_ARN: Final = re.compile(r"arn:[^:]+:secretsmanager:(?P<region>[^:]+):[^:]*:secret:.+")


class OfThisProcess:
    """A client that a forked child makes anew: connections are not for sharing.

    Args:
        make: Makes it.
    """

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make
        self._inner: Any = make()
        begin_again_in_child(self)

    def begin_again(self) -> None:
        """Forget the parent's client."""
        self._inner = None

    def __getattr__(self, name: str) -> Any:
        inner = self._inner
        if inner is None:  # two threads that ask first at once may make two; either will do
            inner = self._inner = self._make()
        return getattr(inner, name)


def aws_client(
    service: str,
    *,
    region: str | None,
    profile: str | None = None,
    endpoint_url: str | None = None,
    connect_timeout: float = 2.0,
    read_timeout: float = 5.0,
    max_attempts: int = 3,
) -> Any:
    """Make a client of a *service* of AWS, by boto3's name of it. Timeouts in seconds.

    Raises:
        ConfigError: There is no such profile, or no region is known.
        MissingExtraError: boto3 is not installed.
    """
    try:
        import boto3  # noqa: PLC0415 - loaded by who uses it
        from botocore.config import Config  # noqa: PLC0415
        from botocore.exceptions import BotoCoreError  # noqa: PLC0415
    except ImportError as missing:
        raise MissingExtraError.naming("aws", "a client of AWS", missing) from missing
    config = Config(
        connect_timeout=connect_timeout,
        read_timeout=read_timeout,
        retries={"total_max_attempts": max_attempts, "mode": "standard"},
    )
    try:
        session: Any = boto3.Session(profile_name=profile)
        return session.client(service, region_name=region, endpoint_url=endpoint_url, config=config)
    except (BotoCoreError, ValueError) as error:
        raise ConfigError(f"no client of AWS {service}: {error}") from None


def kms_client(**options: Any) -> Any:
    """Make a client of AWS KMS. Options and errors are those of `aws_client`."""
    return aws_client("kms", **options)


def table_client(account: str, table: str, credential: TokenCredential) -> Any:
    """Make a client of a *table* of Azure Storage or Cosmos DB.

    Raises:
        MissingExtraError: azure-data-tables is not installed.
    """
    try:
        from azure.data.tables import TableClient  # noqa: PLC0415 - loaded by who uses it
    except ImportError as missing:
        raise MissingExtraError.naming("azure-tables", "a client of Azure tables", missing) from missing
    return TableClient(
        account, table, credential=credential, connection_timeout=2, read_timeout=5, retry_total=2
    )


def azure_credential(kind: str = "default", client_id: str | None = None) -> TokenCredential:
    """Make a credential of that *kind*: default, managed-identity, workload-identity, environment or cli.

    Raises:
        ConfigError: The environment does not say what that kind needs.
        MissingExtraError: azure-identity is not installed.
    """
    try:
        from azure import identity  # noqa: PLC0415 - loaded by who uses it
    except ImportError as missing:
        raise MissingExtraError.naming("azure", "a credential of Azure", missing) from missing
    own = {} if client_id is None else {"client_id": client_id}
    try:
        if kind == "managed-identity":
            return identity.ManagedIdentityCredential(client_id=client_id)
        if kind == "workload-identity":
            return identity.WorkloadIdentityCredential(**own)
        if kind == "environment":
            return identity.EnvironmentCredential()
        if kind == "cli":
            return identity.AzureCliCredential()
        return identity.DefaultAzureCredential(managed_identity_client_id=client_id)
    except ValueError as error:
        raise ConfigError(f"no credential of Azure: {error}") from None


def key_client(url: str, credential: TokenCredential, **options: Any) -> Any:
    """Make a ``KeyClient`` of the vault at *url*, with short timeouts unless *options* say otherwise.

    Raises:
        ConfigError: The client cannot be made of that.
        MissingExtraError: azure-keyvault-keys is not installed.
    """
    try:
        from azure.keyvault.keys import KeyClient  # noqa: PLC0415 - loaded by who uses it
    except ImportError as missing:
        raise MissingExtraError.naming("azure", "a client of Azure Key Vault", missing) from missing
    short = {"connection_timeout": 2.0, "read_timeout": 5.0, "retry_total": 2}
    try:
        return KeyClient(url, credential, **short | options)
    except (ValueError, NotImplementedError) as error:
        raise ConfigError(f"no client of Azure Key Vault: {error}") from None


def vault_client(
    url: str, token: str, *, namespace: str | None = None, timeout: float = 5.0, authority: str | None = None
) -> hvac.Client:
    """Make a client of Vault or OpenBao. *authority* is a PEM file of certificate authorities, *timeout* is in seconds.

    Raises:
        MissingExtraError: hvac is not installed.
    """
    try:
        import hvac  # noqa: PLC0415 - loaded by who uses it
    except ImportError as missing:
        raise MissingExtraError.naming("vault", "a client of Vault", missing) from missing
    more: dict[str, Any] = {"timeout": timeout}  # its types know whole seconds alone
    return hvac.Client(url=url, token=token, namespace=namespace, verify=authority or True, **more)


def secret_of_aws(name: str, *, region: str | None = None, stage: str | None = None) -> str | bytes:
    """Ask AWS Secrets Manager for the secret of that *name* or ARN.

    Raises:
        ConfigError: It was not given.
        MissingExtraError: boto3 is not installed.

    Source: AWS Secrets Manager API, GetSecretValue.
    """
    try:
        import boto3  # noqa: PLC0415 - loaded by who uses it
        from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415
    except ImportError as missing:
        raise MissingExtraError.naming("aws", "a secret of AWS Secrets Manager", missing) from missing
    arn = _SECRET_ARN.fullmatch(name)
    more = {} if stage is None else {"VersionStage": stage}
    try:
        client = boto3.client("secretsmanager", region_name=region or (arn["region"] if arn else None))
        answer = client.get_secret_value(SecretId=name, **more)
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code", "no code")
        raise ConfigError(f"AWS Secrets Manager has not given {name}: {code}") from None
    except BotoCoreError as error:
        raise ConfigError(f"AWS Secrets Manager has not given {name}: {type(error).__name__}") from None
    found: str | bytes = answer["SecretString"] if "SecretString" in answer else answer["SecretBinary"]
    return found


def secret_of_azure(identifier: str, credential: TokenCredential | None = None) -> str:
    """Ask Azure Key Vault for the secret ``https://VAULT/secrets/NAME``, with or without a version.

    Raises:
        ConfigError: It was not given.
        MissingExtraError: A library of Azure is not installed.

    Source: Azure Key Vault REST API, Get Secret.
    """
    try:
        from azure.core.exceptions import AzureError  # noqa: PLC0415 - loaded by who uses it
        from azure.keyvault.secrets import SecretClient  # noqa: PLC0415
    except ImportError as missing:
        raise MissingExtraError.naming("azure", "a secret of Azure Key Vault", missing) from missing
    match = AZURE_SECRET.fullmatch(identifier)
    if match is None:
        raise ConfigError(f"not the identifier of a secret, https://VAULT/secrets/NAME: {identifier!r}")
    try:
        with SecretClient(match["vault"], credential or azure_credential()) as client:
            value = client.get_secret(match["name"], match["version"]).value
    except AzureError as error:
        raise ConfigError(f"Azure Key Vault has not given {identifier}: {type(error).__name__}") from None
    return value or ""
