"""Where revocation lists and OCSP responses come from: files, and addresses of an authority.

What is fetched is signed by the authority and has dates, so an address may be http. None that a certificate names is asked: a stranger's
certificate is not to say whom we call.

Source: RFC 5280 4.2.1.13; RFC 6960 appendix A.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final
from urllib.error import HTTPError
from urllib.request import HTTPRedirectHandler, Request, build_opener

from postseal.core.revocation import ocsp_request

__all__ = ["ListsFrom", "OcspFrom"]

_MOST: Final = 16 * 1024 * 1024
"""Bytes of an answer."""


class ListsFrom:
    """Gives revocation lists: reads files, fetches from addresses.

    Args:
        sources: Paths, and ``https://`` or ``http://`` addresses.
        timeout: Seconds.
    """

    def __init__(self, sources: Sequence[Path | str], *, timeout: float = 5.0) -> None:
        self._sources, self._timeout = tuple(sources), timeout

    def __call__(self) -> list[bytes]:
        """Read and fetch all. Raises OSError where one cannot be had."""
        return [
            source.read_bytes() if isinstance(source, Path) else _fetched(Request(source), self._timeout)  # noqa: S310 - http alone, as the file says
            for source in self._sources
        ]


class OcspFrom:
    """Asks an OCSP responder.

    Args:
        url: Of the responder.
        timeout: Seconds.
    """

    def __init__(self, url: str, *, timeout: float = 5.0) -> None:
        self._url, self._timeout = url, timeout

    def __call__(self, certificate: Any, issuer: Any) -> bytes:
        """Ask about *certificate*, which *issuer* issued. Raises OSError where there is no answer."""
        headers = {"Content-Type": "application/ocsp-request", "Accept": "application/ocsp-response"}
        question = Request(self._url, ocsp_request(certificate, issuer), headers)  # noqa: S310 - likewise
        return _fetched(question, self._timeout)


class _NoRedirect(HTTPRedirectHandler):
    """Follows none: what was configured is asked, and nobody else."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        """Have it reported as an error."""


def _fetched(request: Request, timeout: float) -> bytes:
    try:
        with build_opener(_NoRedirect).open(request, timeout=timeout) as answer:
            content: bytes = answer.read(_MOST + 1)
    except HTTPError as error:
        with error:
            raise OSError(f"{request.full_url} answered {error.code}") from None
    if len(content) > _MOST:
        raise OSError(f"{request.full_url} answered with over {_MOST} bytes")
    return content
