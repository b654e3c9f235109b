"""What Azure Key Vault says of a key: whether it is enabled, when it ends, what a deletion would leave.

Source: Azure Key Vault REST API: Get Key, Key attributes; soft-delete and purge protection.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from postseal.core.errors import KeyRefused, PostsealError
from postseal.core.findings import Finding, bad, clock_of, ends_of, good, warning
from postseal.core.providers._azure_rest import Vault

__all__ = ["examined"]

_PURGEABLE: Final = "Purgeable"
"""In a key's recovery level: whoever may purge can destroy it at once. Source: Azure Key Vault, DeletionRecoveryLevel."""


def examined(
    vault: Vault, name: str, now: float, *, wraps: bool = True, version: str = ""
) -> Iterator[Finding]:
    """Say how that *version* of the key *name* is, the newest by default.

    Args:
        vault: To ask.
        name: Of the key.
        now: Seconds since the epoch.
        wraps: Whether it makes data keys or signs, or only opens what it wrapped once.
        version: Of the key.
    """
    where = f"{vault.url}/keys/{name}" + (f"/{version}" if version else "")
    try:
        answer, date = vault.get_dated(name, version)
    except KeyRefused as error:
        # Whoever wraps needs the public part; whoever only opens does not.
        mend = "look whether it is there, and enabled; give the role Key Vault Crypto User, or the permission keys/get"
        yield bad(str(error), mend) if wraps else warning(f"its state is not to be seen: {error}", mend)
        return
    except PostsealError as error:
        yield bad(str(error), "look at the name of the vault, credentials, firewall and network")
        return
    told: dict[str, Any] = answer.get("attributes") or {}
    if told.get("enabled") is False:
        yield bad(
            f"{where} is disabled",
            f"az keyvault key set-attributes --enabled true --id {where}",
        )
    else:
        yield good(f"{where} is enabled")
    begins = told.get("nbf")
    if isinstance(begins, (int, float)) and begins > now:
        yield bad(f"{where} is not valid yet", "wait, or change its activation date")
    ends = told.get("exp")
    yield from ends_of(
        ends if isinstance(ends, (int, float)) else None, where, now, f"az keyvault key rotate --id {where}"
    )
    if _PURGEABLE in str(told.get("recoveryLevel", "")):
        yield warning(
            f"{where} can be purged, and then nothing that was wrapped under it opens ever again",
            "az keyvault update --enable-purge-protection true",
        )
    yield from clock_of(date, now)
