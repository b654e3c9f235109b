"""The few words spoken to a container engine. The compose file says the rest."""

import os
import secrets
import shutil
import subprocess
from collections.abc import Mapping, Sequence

from .machine import REPOSITORY

_COMPOSE = REPOSITORY / "docker" / "compose.yaml"


def engine_answers() -> bool:
    """Tell whether a container engine is there and answers, which a client alone does not show."""
    if not shutil.which("docker"):
        return False
    try:
        return run(["docker", "info"]) == 0
    except subprocess.TimeoutExpired:
        return False


def compose_up(service: str) -> tuple[list[str], list[str]]:
    """Give the command that runs one service in the foreground, and the one that removes it afterwards.

    In the foreground it is stopped as any program is: ended in order, it stops its container.
    """
    project = f"postseal-{service}-{secrets.token_hex(4)}"
    compose = ["docker", "compose", "--project-name", project, "--file", str(_COMPOSE)]
    return [*compose, "up", "--no-log-prefix", service], [*compose, "down", "--volumes"]


def environment(ports: Mapping[str, int]) -> dict[str, str]:
    """Give the environment in which compose finds the engine and our ports."""
    return {**os.environ, **{name: str(port) for name, port in ports.items()}}


def kill(up: Sequence[str]) -> None:
    """Kill the service that the command *up* runs. Its data stays in the stopped container."""
    service = up[-1]
    run([*up[: up.index("up")], "kill", service])


def run(command: Sequence[str]) -> int:
    """Run a command of the engine and give its exit code."""
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=60)
    return done.returncode
