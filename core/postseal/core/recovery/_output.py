"""Writes what was recovered, so that a recovery that was stopped goes on where it was."""

from __future__ import annotations

import base64
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Final, Self

from postseal.core.errors import ConfigError, Refused
from postseal.core.recovery._dumps import Kept
from postseal.core.recovery._opening import Proof, Recovered, Recovery

__all__ = ["Output", "Report", "recover"]

_EXAMPLES: Final = 3


@dataclass(slots=True)
class Report:
    """What came of a dump, counted in messages."""

    recovered: int = 0
    """Opened now."""
    before: int = 0
    """Opened by an earlier run into the same folder."""
    proofs: Counter[Proof] = field(default_factory=Counter)
    """Of those opened now."""
    failed: Counter[str] = field(default_factory=Counter)
    """By verdict and reason."""
    examples: dict[str, list[str]] = field(default_factory=dict)
    """The first few sources for each reason."""

    @property
    def lost(self) -> int:
        """How many did not open."""
        return self.failed.total()

    @property
    def seen(self) -> int:
        """How many there were."""
        return self.recovered + self.before + self.lost

    def fail(self, source: str, reason: str) -> None:
        """Count a message that did not open."""
        self.failed[reason] += 1
        examples = self.examples.setdefault(reason, [])
        if len(examples) < _EXAMPLES:
            examples.append(source)

    def as_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {
            "messages": self.seen,
            "recovered": self.recovered,
            "recovered_before": self.before,
            "lost": self.lost,
            "proofs": {proof.value: self.proofs[proof] for proof in Proof},
            "failures": [
                {"reason": reason, "messages": count, "examples": self.examples[reason]}
                for reason, count in self.failed.most_common()
            ],
        }


class Output:
    """A folder: ``recovered.jsonl``, one message a line, and ``failed.jsonl``. **The bodies in it are in clear**; only its owner reads it.

    Args:
        folder: New, or that of an earlier run, which goes on: what it has opened is not opened again, what did not open is tried again.

    Raises:
        ConfigError: It cannot be written to.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self._done: set[str] = set()
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._good = self._opened("recovered.jsonl", "r+b")
            self._bad = self._opened("failed.jsonl", "wb")
        except OSError as error:
            raise ConfigError(f"{str(folder)!r} cannot be written to: {error.strerror}") from None
        try:
            self._take_up()
        except ConfigError:
            self.close()
            raise

    def close(self) -> None:
        """Write all out."""
        self._good.close()
        self._bad.close()

    def _opened(self, name: str, mode: str) -> BinaryIO:
        flags = os.O_RDWR | os.O_CREAT | (os.O_TRUNC if mode == "wb" else 0)
        path = self.folder / name
        number = os.open(path, flags, 0o600)
        path.chmod(0o600)  # who made the file may have let others read it
        return os.fdopen(number, mode)  # type: ignore[return-value]  # both modes are binary

    def _take_up(self) -> None:
        """Read what an earlier run has written, and cut off the line in which it was stopped."""
        end = 0
        for line in self._good:
            if not line.endswith(b"\n"):
                break
            try:
                self._done.add(json.loads(line)["source"])
            except (ValueError, KeyError, TypeError):
                raise ConfigError(f"{self.folder / 'recovered.jsonl'} is none of ours") from None
            end += len(line)
        self._good.seek(end)
        self._good.truncate()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def has(self, source: str) -> bool:
        """Tell whether that message was recovered already."""
        return source in self._done

    def keep(self, recovered: Recovered) -> None:
        """Write a message that opened."""
        opened = recovered.opened
        line = {
            "source": recovered.source,
            "message_id": opened.message_id,
            "sender": opened.sender,
            "proof": recovered.proof.value,
            "destination": opened.destination,
            "policy": opened.policy,
            "sent_at": None if opened.sent_at is None else opened.sent_at.isoformat(),
            "content_type": opened.content_type,
            "body": base64.b64encode(opened.body).decode(),
        }
        self._good.write(json.dumps(line).encode() + b"\n")
        self._done.add(recovered.source)

    def fail(self, source: str, verdict: str, reason: str) -> None:
        """Write why a message did not open."""
        self._bad.write(json.dumps({"source": source, "verdict": verdict, "reason": reason}).encode() + b"\n")


def recover(
    messages: Iterable[Kept],
    recovery: Recovery,
    output: Output,
    *,
    progress: Callable[[Report], None] = lambda report: None,  # noqa: ARG005 - nobody looks
) -> Report:
    """Open all *messages* into *output*; go on after each that does not open.

    Args:
        messages: Of a dump.
        recovery: Opens them.
        output: Where they go.
        progress: Told after each message.
    """
    report = Report()
    for kept in messages:
        if output.has(kept.source):
            report.before += 1
        else:
            try:
                recovered = recovery.open(kept)
            except Refused as refused:
                reason = refused.detail or "it was changed, or what is bound beside it"
                report.fail(kept.source, f"{refused.verdict.value}: {reason}")
                output.fail(kept.source, refused.verdict.value, reason)
            else:
                output.keep(recovered)
                report.recovered += 1
                report.proofs[recovered.proof] += 1
        progress(report)
    return report
