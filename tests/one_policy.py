"""Runs the programs of `examples/one_policy` under `examples/postseal.toml`: without their hook line, with it, and compares what they see."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from postseal.core import UnsafeLocalKeys

__all__ = ["EXAMPLES", "bare_and_protected", "without_hook"]

EXAMPLES = Path(__file__).parents[1] / "examples"
_COUNT = 3
_SECRET = "c2hvcCBzaG9wIHNob3Agc2hvcCBzaG9wIHNob3Agc2g="


def without_hook(text: str) -> str:
    """Return a program without its hook line, and without what that imports."""
    return "".join(
        line
        for line in text.splitlines(keepends=True)
        if not line.startswith("from postseal") and "# the hook line" not in line
    )


def bare_and_protected(
    program: str,
    folder: Path,
    environment: Mapping[str, str],
    make: Callable[[], str],
    destination: Callable[[str], str] | None = None,
) -> None:
    """Run *program* in processes of their own, as a newcomer would, and see what it does.

    Args:
        program: Name of its file, without the suffix.
        folder: Empty.
        environment: What names the broker.
        make: Makes a queue or topic that nobody used before; returns its name.
        destination: Says what the policy file calls it, where its patterns do not mean it.
    """
    text = (EXAMPLES / "one_policy" / f"{program}.py").read_text()
    policy = (EXAMPLES / "postseal.toml").read_text()
    protected, bare = folder / "protected.py", folder / "bare.py"
    protected.write_text(text)
    bare.write_text(without_hook(text))
    assert "postseal" not in bare.read_text()
    UnsafeLocalKeys.create_file(folder / "main.key")
    settings = {
        **os.environ,
        **environment,
        "POSTSEAL_POLICY": str(folder / "postseal.toml"),
        "POSTSEAL_SHOP_2026_10": _SECRET,
        "PYTHONWARNINGS": "ignore",
    }

    def run(file: Path, verb: str, name: str) -> list[str]:
        if destination is not None:
            own = policy.replace(f'"{destination("orders")}"', f'"{destination(name)}"')
            assert own != policy
        else:
            own = policy
        (folder / "postseal.toml").write_text(own)
        done = subprocess.run(
            [sys.executable, str(file), verb, name],
            env=settings,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    def seen(sender: Path, receiver: Path) -> list[str]:
        name = make()
        assert run(sender, "send", name) == []
        return run(receiver, "receive", name)

    clear = seen(bare, bare)
    assert len(clear) == _COUNT
    assert "4111 1111 1111 1111" in clear[0]
    assert seen(protected, protected) == clear
    held = seen(protected, bare)  # what the broker has
    assert len(held) == _COUNT
    assert all("4111 1111" not in line and "card" not in line for line in held)
    assert all("north" in line for line in held)
