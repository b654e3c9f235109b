"""The example that a newcomer runs first."""

import os
import subprocess
import sys
from pathlib import Path

EXAMPLE = Path(__file__).parents[2] / "examples" / "sqs_orders.py"


def test_the_example_runs_without_an_account():
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    done = subprocess.run(
        [sys.executable, str(EXAMPLE)], capture_output=True, text=True, check=True, env=environment
    )
    lines = done.stdout.splitlines()
    assert [line for line in lines if line.startswith("consumer gets")] == [
        'consumer gets {"order": 4711, "card": "4111 1111 1111 1111"}'
    ]
    [held] = [line for line in lines if line.startswith("queue holds")]
    assert "4111" not in held
    assert sum(line.startswith("quarantined") for line in lines) == 2
    assert done.stderr == ""
