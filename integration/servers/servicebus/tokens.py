"""Shared access signatures: made by clients from a key, checked here.

Source: Service Bus, "Access control with shared access signatures".
"""

import base64
import hashlib
import hmac
import time
from collections.abc import Callable
from urllib.parse import parse_qs, unquote_plus

from .errors import Unauthorized

KEY_NAME = "RootManageSharedAccessKey"
# The one of Microsoft's emulator, which everybody knows.
KEY = "SAS_KEY_VALUE"


def check(token: str, audience: str, *, key: str = KEY, clock: Callable[[], float] = time.time) -> float:
    """Check that *token* is signed with *key*, covers *audience*, and lives; tell until when.

    Raises:
        Unauthorized: It does not.
    """
    scheme, _, text = token.partition(" ")
    fields = {name: values[0] for name, values in parse_qs(text).items()}
    if scheme != "SharedAccessSignature" or not {"sr", "sig", "se", "skn"} <= fields.keys():
        raise Unauthorized("no shared access signature")
    # Signed as written: the resource is still quoted there.
    written = dict(part.split("=", 1) for part in text.split("&"))
    signed = f"{written['sr']}\n{written['se']}".encode()
    wanted = base64.b64encode(hmac.digest(key.encode(), signed, hashlib.sha256)).decode()
    if fields["skn"] != KEY_NAME or not hmac.compare_digest(wanted, unquote_plus(written["sig"])):
        raise Unauthorized("the signature is not made with our key")
    if float(fields["se"]) <= clock():
        raise Unauthorized("the token is expired")
    if not within(audience, fields["sr"]):
        raise Unauthorized("the token is for another resource")
    return float(fields["se"])


def within(audience: str, resource: str) -> bool:
    inner, outer = (text.split("://")[-1].rstrip("/").lower() for text in (audience, resource))
    return inner == outer or inner.startswith(outer + "/")
