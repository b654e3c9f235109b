"""The example that a newcomer runs first."""

import os
import subprocess
import sys
from pathlib import Path

EXAMPLE = Path(__file__).parents[2] / "examples" / "servicebus_orders.py"


def test_the_example_runs_with_a_connection_string(server):
    for queue in ("orders", "refused"):
        server.create_queue(queue)
    done = subprocess.run(
        [sys.executable, str(EXAMPLE)],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"SERVICEBUS_CONNECTION_STRING": server.address},
    )
    lines = done.stdout.splitlines()
    assert [line for line in lines if line.startswith("consumer gets")] == [
        'consumer gets {"order": 4711, "card": "4111 1111 1111 1111"}'
    ]
    [held] = [line for line in lines if line.startswith("queue holds")]
    assert "4111" not in held
    assert [line.split()[1] for line in lines if line.startswith("quarantined")] == ["forged", "unprotected"]
    assert done.stderr == ""
