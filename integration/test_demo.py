"""``postseal demo`` on four brokers."""

import json
import subprocess
import sys

COMMAND = [sys.executable, "-c", "from postseal.core.cli import main; raise SystemExit(main())", "demo"]


def test_the_demonstration_plays_on_all_four_brokers(rabbitmq, servicebus):
    """A1, A9, D4, E3, E5, E6: the same story on each, and nothing left out."""
    for place in ("orders", "refunds"):
        servicebus.control("create_queue", name=place)
    done = subprocess.run(
        [*COMMAND, "--json", "--rabbitmq", rabbitmq.url, "--servicebus", servicebus.address],
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    shown = json.loads(done.stdout)
    assert shown["problems"] == []
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert shown["left_out"] == {}
    assert set(shown["brokers"]) == {"kafka", "sqs", "rabbitmq", "servicebus"}
    for act in shown["brokers"].values():
        assert act["handed_on_unchanged"] == act["messages"] == 41
        assert act["secrets_looked_for"] == 120
        assert act["secrets_found"] == []
        assert act["key_service_calls"] == {"GenerateDataKey": 1, "Decrypt": 1}
        assert act["refused_kept"]["messages"] == len(act["attacks"]) == 6
