"""What the machine offers: programs, ports, a folder of installed servers."""

import contextlib
import fcntl
import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from .errors import ServerUnavailable

REPOSITORY = Path(__file__).resolve().parents[2]
SERVERS = REPOSITORY / ".servers"
LOOPBACK = "127.0.0.1"

# Below the range from which systems choose ports for outgoing connections, so that none of these takes ours.
_PORTS = range(20_000, 32_000)


def say(text: str) -> None:
    """Print progress, at once: installing takes minutes."""
    print(f"[servers] {text}", file=sys.stderr, flush=True)


def free_ports(count: int) -> list[int]:
    """Choose *count* loopback ports on which nothing listens."""
    found: list[int] = []
    # Chosen at random, so that two runs that start together hardly ever choose the same.
    for port in random.sample(_PORTS, len(_PORTS)):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind((LOOPBACK, port))
                found.append(port)
        if len(found) == count:
            return found
    raise ServerUnavailable("no free port on the loopback interface")


def connects(host: str, port: int) -> bool:
    """Tell whether anything accepts a connection there."""
    try:
        socket.create_connection((host, port), timeout=1).close()
    except OSError:
        return False
    return True


def installed(base: Path, name: str, build: Callable[[Path], None]) -> Path:
    """Give the folder *base*/*name*, built once however many processes ask.

    Args:
        base: The folder of all installed servers.
        name: What it is, with its version: a new version is a new folder.
        build: Fills the empty folder it is given. What it leaves must not depend on that folder's path.

    Raises:
        ServerUnavailable: As *build* says. Nothing is left behind.
    """
    final = base / name
    if final.is_dir():
        return final
    with locked(base, name):
        if final.is_dir():
            return final
        part = Path(tempfile.mkdtemp(prefix=f"{name}.part-", dir=base))
        started = time.monotonic()
        say(f"installing {name} into {base}: once, it takes a while")
        try:
            build(part)
            part.rename(final)
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            raise
        say(f"installed {name} in {time.monotonic() - started:.0f} s")
    return final


@contextlib.contextmanager
def locked(base: Path, name: str) -> Iterator[None]:
    """Hold the lock *name* against other processes and threads."""
    base.mkdir(parents=True, exist_ok=True)
    with (base / f"{name}.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"waiting for another process that installs {name}")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def run(command: Sequence[str], *, what: str, directory: Path | None = None, tries: int = 1) -> str:
    """Run a step of an installation and give its output.

    Args:
        command: The program and its arguments.
        what: What it does, for the error.
        directory: Where it runs.
        tries: More than one where a network is asked.

    Raises:
        ServerUnavailable: It failed; the text holds the end of its output.
    """
    while True:
        tries -= 1
        try:
            done = subprocess.run(
                command, cwd=directory, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
            )
        except OSError as error:
            raise ServerUnavailable(f"{what}: {error}") from error
        if done.returncode == 0:
            return done.stdout
        if tries < 1:
            raise ServerUnavailable(f"{what} failed:\n{(done.stdout + done.stderr)[-3000:]}")
        say(f"{what} failed; trying again")


def program(name: str, *, package: str, base: Path = SERVERS) -> str:
    """Find a program on the path; as root on Debian, install the package that holds it.

    Raises:
        ServerUnavailable: It is missing and cannot be installed here; the text names the package.
    """
    found = shutil.which(name)
    if found:
        return found
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise ServerUnavailable(f"{name} is missing: install it (on Debian: apt-get install {package})")
    with locked(base, "apt"):
        if not shutil.which(name):
            say(f"installing {package}")
            run(["apt-get", "update", "-qq"], what="apt-get update", tries=3)
            quiet = ["env", "DEBIAN_FRONTEND=noninteractive"]
            run(
                [*quiet, "apt-get", "install", "-y", "--no-install-recommends", package],
                what=f"apt-get install {package}",
            )
    found = shutil.which(name)
    if not found:
        raise ServerUnavailable(f"{package} was installed and {name} is still missing")
    return found
