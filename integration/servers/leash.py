"""Run a program that ends when its owner does.

    python leash.py SECONDS PROGRAM [ARGUMENT ...]

The owner holds the other end of standard input. When that end closes, however the owner ended, the
program and its children are asked to end, and killed after SECONDS. A pipe does this where a parent-death signal would
not: that one also fires when only the thread that started the program ends.

Imports nothing of the project, so that it starts in a moment and on any Python.
"""

import contextlib
import os
import signal
import subprocess
import sys
import threading


def main(patience: float, command: list[str]) -> None:
    """Start *command*, print its process id, and end it when standard input closes."""
    # Its own session: an interrupt typed at the terminal reaches the owner, which then stops this in order.
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=2, start_new_session=True)
    print(child.pid, flush=True)
    threading.Thread(target=_end_with, args=(child,), daemon=True).start()
    sys.stdin.buffer.read()
    _signal(child, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(patience)
    # Children that outlived the program are in its process group still.
    _signal(child, signal.SIGKILL)
    child.wait()


def _end_with(child: subprocess.Popen[bytes]) -> None:
    code = child.wait()
    _signal(child, signal.SIGKILL)
    os._exit(code if code >= 0 else 128 - code)


def _signal(child: subprocess.Popen[bytes], number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, number)


if __name__ == "__main__":
    main(float(sys.argv[1]), sys.argv[2:])
