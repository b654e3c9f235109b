"""Run ``postseal demo`` with RabbitMQ and the Service Bus test server beside it.

    python -m integration.demo [--install] [options of postseal demo]

Without --install, whichever of them is not installed yet is left out, and the demonstration says so: installing takes a minute.
"""

import os
import subprocess
import sys
from contextlib import ExitStack
from importlib.util import find_spec

_COMMAND = [sys.executable, "-c", "from postseal.core.cli import main; raise SystemExit(main())", "demo"]


def main(arguments: list[str]) -> int:
    """Start what there is, run the demonstration, and return its exit code."""
    install = "--install" in arguments
    options = [argument for argument in arguments if argument != "--install"]
    # Whoever installed the tests' environment has all clients; the demonstration's own lacks that of the test server.
    missing = [name for name in ("pika", "azure.servicebus", "proton") if not _is_there(name)]
    if missing:
        return subprocess.call([*_COMMAND, *options])
    from integration.servers import RabbitMq, ServiceBus
    from integration.servers.machine import SERVERS

    named: dict[str, str] = {}
    with ExitStack() as stack:
        if install or any(path.is_dir() for path in SERVERS.glob("rabbitmq-*")):
            named["POSTSEAL_DEMO_RABBITMQ"] = stack.enter_context(RabbitMq()).url
        servicebus = stack.enter_context(ServiceBus())
        for queue in ("orders", "refunds"):
            servicebus.control("create_queue", name=queue)
        named["POSTSEAL_DEMO_SERVICEBUS"] = servicebus.address
        return subprocess.call([*_COMMAND, *options], env=named | os.environ)


def _is_there(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # not even its parent
        return False


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
