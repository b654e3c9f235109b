"""A test server that speaks to the real Service Bus SDK, on python-qpid-proton.

with ServiceBusTestServer() as server:
    server.create_queue("orders", lock_duration=1)
    with ServiceBusClient.from_connection_string(server.connection_string) as client: ...

As a program: python -m integration.servers.servicebus --port 25672 --control 25673
"""

from .server import ServiceBusTestServer

__all__ = ["ServiceBusTestServer"]
