"""What is said to a vault, through the pipeline of the `KeyClient` that the caller made, sync or asyncio.

Its own `send_request` is used, not a `CryptographyClient`: that one asks for the key before it unwraps with it, which would cost a second
call and a second right, ``keys/get``. Credential, transport, retries and all other options are those of the one client.

Source: Azure Key Vault REST API: Get Key, Wrap Key, Unwrap Key, Sign, error codes; azure-core, NetworkTraceLoggingPolicy.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from postseal.core.errors import (
    ConfigError,
    KeyBroken,
    KeyRefused,
    KeyUnavailable,
    MissingExtraError,
    PostsealError,
    nearest,
)
from postseal.core.forking import begin_again_in_child

try:
    from azure.core.rest import HttpRequest
    from azure.keyvault.keys import ApiVersion
except ImportError as missing:
    raise MissingExtraError.naming("azure", "postseal.core.providers.azure_key_vault", missing) from missing

if TYPE_CHECKING:
    import asyncio

    from azure.keyvault.keys import KeyClient
    from azure.keyvault.keys.aio import KeyClient as AsyncKeyClient

    AnyKeyClient: TypeAlias = KeyClient | AsyncKeyClient

__all__ = ["ERRORS", "Vault"]

# Refused is what is about the key or a right to it: somebody decided so. What is about this process (its credential, its network), about
# load, or not known is unavailable: it says nothing about the message, and a message must not be lost over it.
ERRORS: Final[Mapping[int | str, type[PostsealError]]] = MappingProxyType(
    {
        # By the status of the answer.
        400: KeyRefused,  # the key is of another kind; but KeyBroken where it was to unwrap
        403: KeyRefused,  # no right, or a key that is disabled or not valid now
        404: KeyRefused,  # deleted, or never there
        # By the code in it, which says more. A private link whose name resolves wrongly looks like this for a while, to everybody.
        "ForbiddenByConnection": KeyUnavailable,
        "ForbiddenByFirewall": KeyUnavailable,
    }
)
"""What an error of Key Vault means for whoever asked. What is not here is `KeyUnavailable`."""

_PATIENCE: Final = 60.0
"""Seconds that a thread waits for an answer on another thread's event loop. The client's own limits are shorter."""
_CODE: Final = re.compile(r"[A-Za-z][A-Za-z0-9]{0,63}")
_API_VERSIONS: Final = frozenset(version.value for version in ApiVersion)


class Vault:
    """One vault or managed HSM, by the client that the caller made for it.

    Args:
        client: ``azure.keyvault.keys.KeyClient``, or the one of ``azure.keyvault.keys.aio``, made and used on the running event loop.

    Raises:
        ConfigError: Something else than that, or an asyncio client where no event loop runs.
    """

    def __init__(self, client: AnyKeyClient) -> None:
        url = str(getattr(client, "vault_url", ""))
        if not hasattr(client, "get_key") or not hasattr(client, "send_request"):
            raise ConfigError(
                f"client must be an azure.keyvault.keys.KeyClient, sync or aio, not {type(client).__name__}"
            )
        if not url.lower().startswith("https://"):
            raise ConfigError(f"the vault of client must have an https address: {url!r}")
        version = str(getattr(client, "api_version", ""))
        if version and version not in _API_VERSIONS:
            # The service answers to a version that it does not know as to a broken wrapped key.
            raise ConfigError(
                f"client has an unknown api_version: {version!r}{nearest(version, _API_VERSIONS)}"
            )
        self.url = url.rstrip("/")
        self._client = client
        self._is_async = hasattr(client, "__aenter__")
        self._loop = _running_loop() if self._is_async else None
        if self._is_async and self._loop is None:
            raise ConfigError(
                "with an asyncio client, make the provider in a coroutine, on the client's loop"
            )
        begin_again_in_child(self)

    def begin_again(self) -> None:
        """Forget the event loop: in a forked child nothing runs it."""
        self._loop = None

    def refuse_to_block_its_loop(self) -> None:
        """See that the loop whose client we wait for is not the one that would wait.

        Raises:
            ConfigError: It is: ``Sealer.seal`` or ``open`` on an event loop, where ``aseal`` and ``aopen`` belong.
        """
        if self._is_async and self._loop is not None and _running_loop() is self._loop:
            raise ConfigError(
                "this key provider has an asyncio client: on its event loop, await Sealer.aseal and Sealer.aopen"
            )

    def get(self, name: str, version: str = "") -> dict[str, Any]:
        """Get a key: its public part, if it has one, and its attributes. The newest where no *version* is named."""
        # Two slashes, as the SDK's own client asks for no version.
        return self._ask("get", name, HttpRequest("GET", f"/keys/{name}/{version}"))

    def get_dated(self, name: str, version: str = "") -> tuple[dict[str, Any], object]:
        """Get a key, and what the vault says of the time."""
        dates: list[object] = []
        request = HttpRequest("GET", f"/keys/{name}/{version}")
        return self._ask("get", name, request, dates=dates), (dates or [None])[0]

    def sign(self, name: str, version: str, algorithm: str, digest: str) -> dict[str, Any]:
        """Have a digest signed: *digest* and the ``value`` of the answer are base64url without padding."""
        return self._ask("sign", name, _operation(name, version, "sign", algorithm, digest))

    def wrap(self, name: str, version: str, algorithm: str, value: str) -> dict[str, Any]:
        """Have a key wrapped: *value* and the ``value`` of the answer are base64url without padding."""
        request = _operation(name, version, "wrapkey", algorithm, value)
        del value
        # The SDK's errors hold the request, and so the data key.
        return self._ask("wrapKey", name, request, secret_request=True)

    def unwrap(self, name: str, version: str, algorithm: str, value: str) -> dict[str, Any]:
        """Have a key unwrapped, likewise.

        Raises:
            KeyBroken: The wrapped key was changed, or is of another key.
        """
        request = _operation(name, version, "unwrapkey", algorithm, value)
        return self._ask("unwrapKey", name, request, bad_request=KeyBroken)

    def decrypt(self, name: str, version: str, algorithm: str, value: str) -> dict[str, Any]:
        """Have decrypted what was encrypted with a key, likewise.

        Raises:
            KeyBroken: It was changed, or is of another key.
        """
        request = _operation(name, version, "decrypt", algorithm, value)
        return self._ask("decrypt", name, request, bad_request=KeyBroken)

    def _ask(
        self,
        operation: str,
        name: str,
        request: HttpRequest,
        *,
        secret_request: bool = False,
        bad_request: type[PostsealError] = KeyRefused,
        dates: list[object] | None = None,
    ) -> dict[str, Any]:
        what = f"Azure Key Vault {operation} on {self.url}/keys/{name}"
        failure: PostsealError
        try:
            # The log of whole requests and answers, where somebody switched it on, is not for these.
            response = self._send(request)
            status, answer = response.status_code, _json_of(response)
        except Exception as error:  # noqa: BLE001 - whatever ended the call, it had no answer
            failure = KeyUnavailable(f"{what}: no answer ({type(error).__name__})")
            if not secret_request:
                # The frames of the SDK hold request and answer.
                failure.__cause__ = error.with_traceback(None)
        else:
            if status == 200 and answer is not None:  # noqa: PLR2004 - HTTP's own number
                if dates is not None:
                    dates.append(response.headers.get("Date"))
                return answer
            failure = _mapped(what, response, answer, bad_request)
        finally:
            del request
        raise failure

    def _send(self, request: HttpRequest) -> Any:
        if not self._is_async:
            return self._client.send_request(request, logging_enable=False)
        loop = self._loop
        if loop is None or not loop.is_running():
            raise RuntimeError("the event loop of the asyncio client does not run in this process")
        import asyncio  # noqa: PLC0415 - who has no loop need not load it

        async def send() -> Any:
            return await self._client.send_request(request, logging_enable=False)  # type: ignore[misc]  # the asyncio one

        flight = asyncio.run_coroutine_threadsafe(send(), loop)
        try:
            return flight.result(_PATIENCE)
        except TimeoutError:
            flight.cancel()
            raise


def _operation(name: str, version: str, verb: str, algorithm: str, value: str) -> HttpRequest:
    return HttpRequest("POST", f"/keys/{name}/{version}/{verb}", json={"alg": algorithm, "value": value})


def _json_of(response: Any) -> dict[str, Any] | None:
    """Return the object that the answer is, or None. The error of the parser would quote it."""
    try:
        answer = response.json()
    except ValueError:
        return None
    return answer if isinstance(answer, dict) else None


def _mapped(
    what: str, response: Any, answer: dict[str, Any] | None, bad_request: type[PostsealError]
) -> PostsealError:
    """Say what an error means. The service's own text stays out of it: it may quote the request."""
    status = int(response.status_code)
    if status == 200:  # noqa: PLR2004 - HTTP's own number
        return KeyUnavailable(f"{what}: an answer that is no JSON object")
    if answer is None or not isinstance(answer.get("error"), dict):
        return KeyUnavailable(f"{what}: {status}, and not in the words of a vault: from something in between")
    codes = _codes(answer["error"])
    kind = ERRORS.get(status, KeyUnavailable) if status != 400 else bad_request  # noqa: PLR2004 - likewise
    for code in codes:
        kind = ERRORS.get(code, kind)
    words = ", ".join(codes) or "no code"
    return kind(f"{what}: {status} {words} (request {response.headers.get('x-ms-request-id', 'none')})")


def _codes(told: object) -> list[str]:
    """Return the codes of an error, outer and inner, where they look like codes."""
    found: list[str] = []
    while isinstance(told, dict) and len(found) < 4:  # noqa: PLR2004 - one or two are usual
        code = told.get("code")
        if isinstance(code, str) and _CODE.fullmatch(code):
            found.append(code)
        told = told.get("innererror")
    return found


def _running_loop() -> asyncio.AbstractEventLoop | None:
    import asyncio  # noqa: PLC0415 - likewise

    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
