# What core/native/ compiles to. Its sources say what each argument is.

from collections.abc import Callable, Mapping
from typing import Any, final

from postseal.core.crypto import HmacContext, RandomBytes
from postseal.core.datakeys import OpenedKey, SealingKey
from postseal.core.opened import Facts, Opened, Parts
from postseal.core.signing import Sign, Verify

@final
class Writer:
    def __new__(
        cls,
        *,
        key: SealingKey,
        permits: list[None],
        small: int,
        random: RandomBytes,
        clock: Callable[[], int],
        monotonic: Callable[[], float],
        encrypt: Callable[[bytes, bytes, bytes], bytes],
        count: Callable[[], int],
        template: bytes,
        begin: int,
        places: tuple[int, ...],
        unbound: bytes,
        tail: bytes,
        before: bytes,
        behind: bytes,
        sign: Sign,
        sign_unbound: Sign,
        begin_mac: Callable[[], HmacContext] | None,
        seconds: Callable[[int], int],
    ) -> Writer: ...
    def write(self, body: bytes, external: bytes, expires: int | None, counted: bool, /) -> bytes: ...

@final
class Opener:
    def __new__(
        cls,
        *,
        key: OpenedKey,
        decrypt: Callable[[bytes, bytes, bytes], bytes],
        skeleton: bytes,
        places: tuple[int, ...],
        before: bytes,
        recipients: bytes,
        behind: bytes,
        signature: int,
        verify: Verify,
        verify_unbound: Verify,
        begin_mac: Callable[[], HmacContext] | None,
        ends: int,
        bound: tuple[str, ...],
        external: Callable[[Any, tuple[str, ...]], bytes],
        unbound: bytes,
        check_time: Callable[[int, int | None], int],
        timed: bool,
        clock: Callable[[], int],
        monotonic: Callable[[], float],
        opened: type[Opened],
        new: Callable[[type[Opened]], Opened],
        facts: Facts,
        content_type: str | None,
        invalid_signature: type[Exception],
        invalid_tag: type[Exception],
        wrong_signature: Callable[[], None],
        forged: Callable[[], None],
        other: Callable[[bytes, Any], Opened | None] | None,
        note: Callable[[bytes, bytes], Any] | None,
        count: Callable[[], int],
        kinds: int,
    ) -> Opener: ...
    @property
    def kinds(self) -> int: ...
    def open(self, data: bytes, beside: Any, /) -> Opened | None: ...

@final
class Hand:
    def __new__(
        cls,
        *,
        ways: Mapping[Any, Any],
        at: str | tuple[str, str],
        unbound: bytes,
        least: int,
        refusals: tuple[type[Exception], ...],
    ) -> Hand: ...
    def seal(self, body: bytes, content_type: str | None = None, /) -> bytes | None: ...
    def open(self, envelope: bytes, /) -> Opened | None: ...
    def body(self, envelope: bytes, /) -> bytes | None: ...
    def parts(self, envelope: bytes, /) -> Parts | None: ...

def encode(data: bytes, /) -> str: ...
def decode(text: str, /) -> bytes | None: ...
def seal_texts(seal: Callable[[bytes], bytes | None], texts: list[Any], /) -> list[str]: ...
def open_texts(open_: Callable[[bytes], bytes | None], texts: list[Any], /) -> list[str]: ...
def in_order(before: bytes, texts: list[str], data: bytes, /) -> bool: ...
def md5s(texts: list[str], /) -> list[str]: ...
