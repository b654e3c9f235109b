"""What is wrong in a policy file: collected, so that all of it can be said at once, each with its line."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from postseal.core.config._positions import Path, Positions
from postseal.core.errors import Mistake, PolicyFileError

__all__ = ["At", "Report"]


class Report:
    """The mistakes and warnings of one file.

    Args:
        file: As the caller named it.
        text: What stands in it.
    """

    def __init__(self, file: str, text: str) -> None:
        self.file = file
        self._text = text
        self._positions: Positions | None = None
        self._mistakes: list[Mistake] = []
        self._warnings: list[Mistake] = []
        self._paths: list[Path] = []
        self._later: list[Callable[[], None]] = []

    def clean(self, path: Path) -> bool:
        """Tell whether no mistake was noted at *path* or below it."""
        return all(each[: len(path)] != path for each in self._paths)

    @property
    def positions(self) -> Positions:
        """Where everything stands; found out when it is first asked for."""
        if self._positions is None:
            self._positions = Positions(self._text)
        return self._positions

    @property
    def warnings(self) -> tuple[Mistake, ...]:
        """What was found that is no mistake, by line."""
        while self._later:
            self._later.pop()()
        return tuple(sorted(set(self._warnings)))

    def later(self, look: Callable[[], None]) -> None:
        """Have *look* look for warnings when somebody asks for them."""
        self._later.append(look)

    def wrong_at(self, place: tuple[int, int], text: str) -> None:
        """Note a mistake at a line and a column."""
        self._mistakes.append(Mistake(self.file, *place, text))

    def wrong(self, path: Path, text: str, *, key: bool = False) -> None:
        """Note a mistake in the value at *path*, or in its name."""
        self._paths.append(path)
        self.wrong_at(self._place(path, key=key), text)

    def warn(self, path: Path, text: str, *, key: bool = False) -> None:
        """Note what is no mistake, and yet hardly meant."""
        self._warnings.append(Mistake(self.file, *self._place(path, key=key), text))

    def line(self, path: Path) -> int:
        """Return the line of the value at *path*."""
        return self.positions.of_value(path)[0]

    def _place(self, path: Path, *, key: bool) -> tuple[int, int]:
        return self.positions.of_key(path) if key else self.positions.of_value(path)

    def finish(self, more: Sequence[Mistake] = ()) -> None:
        """Raise what was found.

        Raises:
            PolicyFileError: There were mistakes.
        """
        if found := sorted({*self._mistakes, *more}):
            raise PolicyFileError(found)


class At(NamedTuple):
    """One place in a file, and whom to tell of it."""

    report: Report
    path: Path = ()

    def __truediv__(self, part: str | int) -> At:
        return At(self.report, (*self.path, part))

    def wrong(self, text: str, *, key: bool = False) -> None:
        """Note a mistake in the value here, or in its name."""
        self.report.wrong(self.path, text, key=key)

    def warn(self, text: str, *, key: bool = False) -> None:
        """Note what is no mistake, and yet hardly meant."""
        self.report.warn(self.path, text, key=key)

    @property
    def line(self) -> int:
        """The line of the value here."""
        return self.report.line(self.path)
