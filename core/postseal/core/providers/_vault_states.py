"""What Vault or OpenBao says of a transit key and of our token.

Source: Vault HTTP API: transit, Read Key; auth/token, Lookup a Token (Self); sys/health.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from hvac import exceptions

from postseal.core.findings import Finding, bad, clock_of, good, warning

if TYPE_CHECKING:
    import hvac

__all__ = ["examined", "server_examined"]

_AEAD: Final = frozenset(
    {"aes128-gcm96", "aes256-gcm96", "chacha20-poly1305", "xchacha20-poly1305", "managed_key"}
)
_SOON: Final = 3600
"""Seconds before its end at which a token should have been renewed."""


def examined(client: hvac.Client, mount: str, name: str, *, wraps: bool) -> Iterator[Finding]:
    """Say how the key *name* is.

    Args:
        client: To ask.
        mount: Where the engine is.
        name: Of the key.
        wraps: Whether it makes data keys, or only opens what it wrapped once.
    """
    where = f"{mount}/keys/{name}"
    try:
        answer = client.secrets.transit.read_key(name, mount_point=mount)
    except exceptions.Forbidden:
        yield warning(
            f"the state of {where} is not to be seen",
            f'path "{where}" {{ capabilities = ["read"] }} to whoever examines',
        )
        return
    except exceptions.InvalidPath:
        yield bad(f"{where} is not there", f"bao write -f {where}, or mend key and mount_point")
        return
    except Exception as error:  # noqa: BLE001 - whatever it was; of its text nothing is shown, it may quote the request
        yield bad(
            f"{where}: no answer ({type(error).__name__})", "look at address, seal, certificates and network"
        )
        return
    told: Mapping[str, Any] = answer.get("data") or {} if isinstance(answer, dict) else {}
    kind = str(told.get("type", "aes256-gcm96"))
    if kind not in _AEAD:
        yield bad(f"{where} is of type {kind[:40]}", "make one of type aes256-gcm96")
    else:
        yield good(f"{where} is there, version {told.get('latest_version', 1)} wraps")
    if told.get("soft_deleted"):
        yield bad(f"{where} was deleted", f"bao write -f {where}/soft-delete-restore")
    if told.get("deletion_allowed"):
        yield warning(
            f"{where} can be deleted, and then nothing that was wrapped under it opens ever again",
            f"bao write {where}/config deletion_allowed=false",
        )
    if wraps and not told.get("auto_rotate_period"):
        yield warning(f"{where} is never rotated", f"bao write {where}/config auto_rotate_period=8760h")


def server_examined(client: hvac.Client, now: float) -> Iterator[Finding]:
    """Say how the token and the clock are."""
    try:
        data = client.auth.token.lookup_self()["data"]
        left, renewable = data.get("ttl"), bool(data.get("renewable"))
    except Exception as error:  # noqa: BLE001 - as above
        yield bad(
            f"the token is not taken ({type(error).__name__})", "log in again; let Vault Agent renew it"
        )
        return
    if isinstance(left, int) and 0 < left < _SOON:
        how = "and can be renewed" if renewable else "and cannot be renewed"
        yield warning(f"the token ends in {left / 60:.0f} min, {how}", "let Vault Agent renew it")
    else:
        yield good("the token is taken")
    try:
        health = client.sys.read_health_status(method="GET")
        date = health.get("server_time_utc") if isinstance(health, dict) else None
    except Exception:  # noqa: BLE001 - a proxy may not let it through
        date = None
    yield from clock_of(date, now)
