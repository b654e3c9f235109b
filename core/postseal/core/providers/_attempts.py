"""Of several ways to open, the first that does; of several failures, the one that the caller must act on."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from postseal.core.errors import KeyBroken, KeyRefused, KeyUnavailable, NotMine, PostsealError

__all__ = ["first_that_opens"]


def first_that_opens(attempts: Iterable[Callable[[], bytes]], nobody: str) -> bytes:
    """Return what the first of *attempts* gives that gives anything.

    Args:
        attempts: Each unwraps a recipient, or says why not.
        nobody: What to say where none was ours.

    Raises:
        KeyUnavailable: None could, and one had no answer: it might have.
        KeyRefused: None could, and one was told no.
        KeyBroken: None could, and one found its recipient changed.
        NotMine: There was none, or all were somebody else's.
    """
    failures: list[PostsealError] = []
    for attempt in attempts:
        try:
            return attempt()
        except (KeyUnavailable, KeyRefused, KeyBroken, NotMine) as error:
            failures.append(error)
    # What may pass comes first: a message must not be settled while somebody could still open it.
    for kind in (KeyUnavailable, KeyRefused, KeyBroken):
        for failure in failures:
            if isinstance(failure, kind):
                raise failure
    raise NotMine(nobody) from (failures[0] if failures else None)
