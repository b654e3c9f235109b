"""Real servers for the tests: natively, in containers, or given by the environment, by one interface.

with Kafka() as kafka, AwsEmulator() as aws:
    producer = Producer({"bootstrap.servers": kafka.address})
    sqs = aws.sqs()
"""

from .aws import REGION, AwsEmulator
from .errors import ServerFailed, ServerUnavailable
from .kafka import Kafka
from .key_vault import KeyVault
from .openbao import OpenBao
from .rabbitmq import RabbitMq
from .redis import Redis
from .server import Route, Server, start_all, stop_all
from .servicebus.process import ServiceBus

__all__ = [
    "REGION",
    "AwsEmulator",
    "Kafka",
    "KeyVault",
    "OpenBao",
    "RabbitMq",
    "Redis",
    "Route",
    "Server",
    "ServerFailed",
    "ServerUnavailable",
    "ServiceBus",
    "start_all",
    "stop_all",
]
