"""What the broker refuses, as a client is told: a condition on a link, a status in an answer.

Source: Service Bus, "AMQP errors" and "AMQP request/response operations".
"""


class BrokerError(Exception):
    """Something is refused, and nothing was changed."""

    condition = "amqp:internal-error"
    status = 500


class EntityNotFound(BrokerError):
    """No such queue, topic or subscription."""

    condition = "amqp:not-found"
    status = 404


class MessageNotFound(BrokerError):
    """No message has that sequence number in that state."""

    condition = "com.microsoft:message-not-found"
    status = 404


class LockLost(BrokerError):
    """The message is not locked by that token, or not any more."""

    condition = "com.microsoft:message-lock-lost"
    status = 410


class SessionLockLost(BrokerError):
    """The session is not locked by that receiver, or not any more."""

    condition = "com.microsoft:session-lock-lost"
    status = 410


class SessionLocked(BrokerError):
    """Another receiver holds the session."""

    condition = "com.microsoft:session-cannot-be-locked"
    status = 409


class TimedOut(BrokerError):
    """No session had a message in time."""

    condition = "com.microsoft:timeout"
    status = 408


class TooLarge(BrokerError):
    """The message is larger than the entity takes."""

    condition = "amqp:link:message-size-exceeded"
    status = 413


class NotAllowed(BrokerError):
    """The entity does not do that."""

    condition = "amqp:not-allowed"
    status = 400


class Unauthorized(BrokerError):
    """No valid token covers that entity."""

    condition = "amqp:unauthorized-access"
    status = 401


class BadRequest(BrokerError):
    """The request cannot be understood."""

    condition = "com.microsoft:argument-error"
    status = 400


class NotImplementedHere(BrokerError):
    """Azure does it; this server does not."""

    condition = "amqp:not-implemented"
    status = 501


class Injected(BrokerError):
    """A test asked for this error."""

    def __init__(self, condition: str, text: str = "a fault that the test asked for") -> None:
        super().__init__(text)
        self.condition = condition
        self.status = {"com.microsoft:server-busy": 503, "amqp:unauthorized-access": 401}.get(condition, 500)
