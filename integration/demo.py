"""Run ``postseal demo`` with RabbitMQ and the Service Bus test server beside it.

    python -m integration.demo [--install] [options of postseal demo]

Without --install, whichever of them is not installed yet is left out, and the demonstration says so: installing takes a minute.
"""

import os
import subprocess
import sys
from contextlib import ExitStack
from importlib.util import find_spec

_LEFT_OUT = {"POSTSEAL_DEMO_INCLUDE": "make demo-all"}
_COMMAND = [sys.executable, "-c", "from postseal.core.cli import main; raise SystemExit(main())", "demo"]


def main(arguments: list[str]) -> int:
    """Start what there is, run the demonstration, and return its exit code."""
    install = "--install" in arguments
    arguments = [argument for argument in arguments if argument != "--install"]
    named: dict[str, str] = {}
    with ExitStack() as stack:
        if "POSTSEAL_DEMO_RABBITMQ" not in os.environ and find_spec("pika") is not None:
            from integration.servers.machine import SERVERS
            from integration.servers.rabbitmq import RabbitMq

            if install or any(path.is_dir() for path in SERVERS.glob("rabbitmq-*")):
                named["POSTSEAL_DEMO_RABBITMQ"] = stack.enter_context(RabbitMq()).url
        if "POSTSEAL_DEMO_SERVICEBUS" not in os.environ and find_spec("proton") is not None:
            from integration.servers.servicebus import ServiceBusTestServer

            server = stack.enter_context(ServiceBusTestServer())
            for queue in ("orders", "refunds"):
                server.create_queue(queue)
            named["POSTSEAL_DEMO_SERVICEBUS"] = server.connection_string
        return subprocess.call([*_COMMAND, *arguments], env=_LEFT_OUT | named | os.environ)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
