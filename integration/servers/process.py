"""A program that never outlives the process that started it."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from .errors import ServerFailed

_LEASH = Path(__file__).with_name("leash.py")


class Leashed:
    """Start *command* and hold it.

    Args:
        command: The program and its arguments.
        environment: The whole environment of the program; nothing is inherited.
        directory: Where it runs.
        log: Where its output is appended.
        patience: Seconds between asking it to end and killing it.

    Raises:
        ServerFailed: The program cannot be run at all.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        environment: Mapping[str, str],
        directory: Path,
        log: Path,
        patience: float = 10,
    ) -> None:
        with log.open("ab") as output:
            self._leash = subprocess.Popen(
                [sys.executable, "-I", "-S", str(_LEASH), str(patience), *command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                cwd=directory,
                env=dict(environment),
                start_new_session=True,
            )
        assert self._leash.stdout is not None
        first = self._leash.stdout.readline()
        if not first:
            self.stop()
            raise ServerFailed(f"{command[0]} cannot be run: {tail(log)}")
        self.pid = int(first)

    @property
    def ended(self) -> bool:
        """Whether the program has ended by itself or was killed."""
        return self._leash.poll() is not None

    def kill(self) -> None:
        """Kill the program as a power cut would: no time to write anything."""
        if not self.ended:
            # The leash has not reaped it, so the id still means this program.
            os.killpg(self.pid, signal.SIGKILL)
        self.stop()

    def stop(self) -> None:
        """Have the program end in order, and wait until it has."""
        assert self._leash.stdin is not None
        assert self._leash.stdout is not None
        self._leash.stdin.close()
        self._leash.wait()
        self._leash.stdout.close()


@dataclass(frozen=True, slots=True)
class Lent:
    """A program that somebody else holds, and ends."""

    pid: int
    ended: ClassVar[bool] = False

    def stop(self) -> None:
        """Leave it running."""


def tail(log: Path, lines: int = 40) -> str:
    """Read the last *lines* of a log, or say that there are none."""
    text = log.read_text(errors="replace").splitlines() if log.exists() else []
    return "\n".join(text[-lines:]) or "(nothing was written)"
