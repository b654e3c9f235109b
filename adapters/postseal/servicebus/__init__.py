"""postseal for Azure Service Bus, with azure-servicebus: seals in the sender, opens in the receiver."""

from postseal.core import MissingExtraError

try:
    import azure.servicebus as _client
except ImportError as _error:
    raise MissingExtraError.naming("servicebus", __name__, _error) from _error

del _client

__all__: list[str] = []
