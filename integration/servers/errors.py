"""What can go wrong with a server.

RuntimeError
|- ServerUnavailable   it cannot be had on this machine: install what the text names
|- ServerFailed        it was started and did not come up: read the log that the text ends with
"""


class ServerUnavailable(RuntimeError):
    """The server cannot be had on this machine; the text says what is missing."""


class ServerFailed(RuntimeError):
    """The server was started and did not come up; the text ends with its log."""
