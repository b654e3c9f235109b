"""Bodies that a key service encrypts itself: no data key, one call for each message. For policies that are `direct`.

What the service encrypts is a byte that no data key begins with, the digest of all that the message is bound to, and the body. So its
header and what is bound beside it hold, though no service takes anything per message; and neither a wrapped data key can be passed off as
a body nor a body as a wrapped data key, because a data key has 32 bytes and this has 33 and more.

Nothing is cached, so what does not open could cost a call each time: what failed is remembered for a while, and once some have failed,
those of their origin are rationed, as wrapped keys are.

Source: SPEC.md 3.7.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final

from postseal.core.crypto import equal, sha256
from postseal.core.datakeys import NEGATIVE_AGE, Calls, Clock, copy_of
from postseal.core.errors import KeyBroken, KeyRefused, KeyUnavailable, PostsealError, TooLarge
from postseal.core.forking import begin_again_in_child
from postseal.core.keys import DirectKeys, KeyContext, Recipient

if TYPE_CHECKING:
    from postseal.core.datakeys.rationing import Rations

__all__ = ["BOUND_SIZE", "DirectBodies"]

BOUND_SIZE: Final = 33
"""Bytes that are encrypted beside the body."""
_MAX_KNOWN: Final = 1024
"""Failures remembered."""
_DOMAIN: Final = b"\x01"


class DirectBodies:
    """The bodies of one policy, encrypted by the key service of *provider*.

    Args:
        provider: Encrypts and decrypts.
        policy: Its name.
        max_failures: Calls a second that may fail, of one origin: `OpeningLimits`.
        clock: Monotonic, in seconds.
    """

    def __init__(
        self, provider: DirectKeys, policy: str, max_failures: float, *, clock: Clock = time.monotonic
    ) -> None:
        self._provider = provider
        self._policy = policy
        self._clock = clock
        self._encrypting: Calls[Recipient] = Calls()
        self._decrypting: Calls[bytes] = Calls()
        self._known: dict[object, tuple[float, PostsealError]] = {}
        self.max_failures = max_failures
        self._rations: Rations | None = None
        self.begin_again()
        begin_again_in_child(self)

    def begin_again(self) -> None:
        """Make the lock anew: in a forked child nobody holds it."""
        self._lock = threading.Lock()

    def drop(self) -> None:
        """Forget what did not open."""
        with self._lock:
            self._known.clear()

    @property
    def most(self) -> int:
        """Bytes of the largest body."""
        return self._provider.most_direct - BOUND_SIZE

    def check_size(self, size: int) -> None:
        """See, before any call, that a body of *size* bytes is not too large.

        Raises:
            TooLarge: It is; the text says what to use instead.
        """
        if size > self.most:
            raise self._too_large(size)

    def _too_large(self, size: int) -> TooLarge:
        return TooLarge(
            f"a body of {size:,} bytes, with the headers that are encrypted, is over what the key of policy {self._policy!r} encrypts "
            f"itself, {self.most:,}: nothing was sealed. Leave out direct = true there: a data key takes bodies of 2 GiB"
        )

    def encrypt(self, body: bytes, bound: bytes, destination: str) -> Recipient:
        """Have *body* encrypted, bound to *bound*, which is all that it is authenticated with.

        Raises:
            TooLarge: The key turned out to be a smaller one.
            KeyUnavailable: The key service did not answer. Retrying may help.
            KeyRefused: It said no.
        """
        plaintext = b"".join((_DOMAIN, sha256(bound), body))
        size = len(body)
        del body  # a traceback shows the locals of its frames to whoever asks
        try:
            return self._provider.encrypt(plaintext, KeyContext(self._policy, destination))
        except TooLarge:
            raise self._too_large(size) from None
        finally:
            del plaintext

    async def encrypt_async(self, body: bytes, bound: bytes, destination: str) -> Recipient:
        """Like `encrypt`, without blocking the loop."""
        return await self._encrypting.run_async(object(), partial(self.encrypt, body, bound, destination))

    def decrypt(self, recipient: Recipient, bound: bytes, destination: str, origin: object = None) -> bytes:
        """Undo `encrypt`: one call.

        Args:
            recipient: What the message carried.
            bound: All that it is authenticated with.
            destination: As sealed.
            origin: Whose signature was verified; None where none was. What fails is on this account.

        Raises:
            NotMine: Another key encrypted it; nobody was asked.
            KeyBroken: It was changed, or is bound to something else. Do not retry.
            KeyRefused: The key service said no.
            KeyUnavailable: It did not answer; or too many messages of this origin did not open lately, and nobody was asked.
        """
        digest = sha256(bound)
        what = destination, *recipient[:2], sha256(recipient.wrapped_key), digest
        self._admit(what, origin)
        try:
            plaintext = self._provider.decrypt(recipient, KeyContext(self._policy, destination))
            body = _body_of(plaintext, digest)
        except (KeyRefused, KeyBroken) as error:
            self._failed(what, origin, error)
            raise
        finally:
            plaintext = b""  # as in `encrypt`
        if self._rations is not None:
            with self._lock:
                self._rations.succeeded(origin, self._clock())
        return body

    async def decrypt_async(
        self, recipient: Recipient, bound: bytes, destination: str, origin: object = None
    ) -> bytes:
        """Like `decrypt`, without blocking the loop."""
        call: Callable[[], bytes] = partial(self.decrypt, recipient, bound, destination, origin)
        return await self._decrypting.run_async(object(), call)

    def _admit(self, what: object, origin: object) -> None:
        """Let a message have its call, unless it is known what comes of it, or too many others have failed."""
        with self._lock:
            now = self._clock()
            known = self._known.get(what)
            if known is not None and now < known[0]:
                raise copy_of(known[1])
            if self._rations is not None and not self._rations.admits(origin, what, now):
                raise KeyUnavailable(
                    f"too many messages of policy {self._policy!r} that came like this one did not open: it is asked for later"
                )

    def _failed(self, what: object, origin: object, error: PostsealError) -> None:
        from postseal.core.datakeys.rationing import Rations  # noqa: PLC0415 - loaded when the first one fails

        failure = copy_of(error)
        with self._lock:
            now = self._clock()
            if self._rations is None:
                self._rations = Rations(self.max_failures)
            self._rations.failed(origin, now)
            self._known.pop(what, None)
            while len(self._known) >= _MAX_KNOWN:
                del self._known[next(iter(self._known))]
            self._known[what] = (now + NEGATIVE_AGE, failure)


def _body_of(plaintext: bytes, digest: bytes) -> bytes:
    """Take off what is not the body, once it is seen to be right."""
    try:
        right = (
            len(plaintext) >= BOUND_SIZE
            and plaintext[:1] == _DOMAIN
            and equal(plaintext[1:BOUND_SIZE], digest)
        )
        if right:
            return plaintext[BOUND_SIZE:]
    finally:
        del plaintext  # as in `encrypt`
    raise KeyBroken("the body is bound to another message, or is none")
