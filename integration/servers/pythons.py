"""Find a Python that is newer than the one that runs this."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from .errors import ServerUnavailable
from .machine import installed, program, run

# Debian's release that ships Python 3.13.
_RELEASE = "trixie"

# Runs the Python of that folder without entering it: its own loader, libraries and standard library.
_WRAPPER = """\
#!/bin/sh
root=$(cd "$(dirname "$0")" && pwd)
loader=$(echo "$root"/usr/lib*/ld-linux*.so.* "$root"/usr/lib/ld-linux*.so.* | tr ' ' '\\n' | grep -v '[*]' | head -n 1)
libraries=$(echo "$root"/usr/lib/*-linux-gnu*)
PYTHONHOME="$root/usr" exec "$loader" --library-path "$libraries" "$root/usr/bin/python3" "$@"
"""


def newer_python(minimum: tuple[int, int], *, base_dir: Path) -> tuple[Path, str]:
    """Find a Python of at least *minimum*, and its version such as "3.13".

    Looks at this one, the path, pyenv's and uv's; as root on Debian, at last, unpacks a newer release's beside the system.

    Raises:
        ServerUnavailable: There is none; the text says what to install.
    """
    for candidate in _candidates(minimum):
        version = _version(candidate)
        if version is not None and version >= minimum:
            return candidate, f"{version[0]}.{version[1]}"
    python = _debian(base_dir, minimum)
    version = _version(python)
    if version is None or version < minimum:
        raise ServerUnavailable(f"the Python of Debian {_RELEASE} in {python.parent} does not run here")
    return python, f"{version[0]}.{version[1]}"


def _candidates(minimum: tuple[int, int]) -> Iterator[Path]:
    yield Path(sys.executable)
    major, minor = minimum
    names = [f"python{major}.{number}" for number in range(minor, minor + 4)]
    for name in [*names, "python3"]:
        found = shutil.which(name)
        if found:
            yield Path(found)
    for number in range(minor, minor + 4):
        yield from sorted(Path.home().glob(f".pyenv/versions/{major}.{number}.*/bin/python"))
    uv = shutil.which("uv") or shutil.which("uv", path=str(Path(sys.executable).parent))
    if uv:
        wanted = f">={major}.{minor}"
        told = subprocess.run(
            [uv, "python", "find", "--no-python-downloads", wanted],
            capture_output=True,
            text=True,
            check=False,
        )
        if told.returncode == 0:
            yield Path(told.stdout.strip())


def _version(python: Path) -> tuple[int, int] | None:
    # Asked, not read from the name: a version manager's stand-in has the name and may not run.
    ask = "import sys, ssl, sqlite3; print(*sys.version_info[:2])"
    try:
        told = subprocess.run([python, "-c", ask], capture_output=True, text=True, check=False, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None
    if told.returncode != 0:
        return None
    major, minor = told.stdout.split()
    return int(major), int(minor)


def _debian(base_dir: Path, minimum: tuple[int, int]) -> Path:
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        wanted = ".".join(map(str, minimum))
        raise ServerUnavailable(
            f"no Python {wanted} or newer: install one (pyenv, uv or the system's packages)"
        )
    return installed(base_dir, f"debian-{_RELEASE}", partial(_unpack, base_dir=base_dir)) / "python3"


def _unpack(folder: Path, *, base_dir: Path) -> None:
    debootstrap = program("debootstrap", package="debootstrap", base=base_dir)
    # The loader must be reachable from outside, where links that begin at the root lead elsewhere.
    folder.chmod(0o755)
    run(
        [debootstrap, "--variant=minbase", "--include=python3", _RELEASE, str(folder)],
        what=f"unpacking Python from Debian {_RELEASE}",
    )
    wrapper = folder / "python3"
    wrapper.write_text(_WRAPPER)
    wrapper.chmod(0o755)
