"""The example runs, and shows what it says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_the_example_runs_on_embedded_defaults() -> None:
    example = Path(__file__).parents[2] / "examples" / "kafka_orders.py"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", example], capture_output=True, text=True, timeout=100, check=True
    )
    lines = done.stdout.splitlines()
    kinds = ["sent", "broker holds", "got", "in quarantine"]
    assert [sum(line.startswith(kind) for line in lines) for kind in kinds] == [2, 2, 2, 1]
    assert not [line for line in lines if line.startswith("broker") and "4111" in line]
    assert "'postseal-verdict': 'unprotected'" in lines[-1]
