import socket
import threading
import time
from contextlib import closing

import pytest

from integration.capture import Recorder
from integration.scan import scan
from integration.servers import Route

ASKED = b"canary of the question"
ANSWERED = b"canary of the answer"


@pytest.fixture
def server():
    """Answers every connection once, then closes it."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve():
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                if connection.recv(1000):
                    connection.sendall(ANSWERED)

    thread = threading.Thread(target=serve)
    thread.start()
    yield listener.getsockname()[1]
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join()


def _ask(address):
    host, port = address.split(":")
    with closing(socket.create_connection((host, int(port)), timeout=5)) as client:
        client.sendall(ASKED)
        return client.recv(1000)


def test_both_directions_are_recorded(server, tmp_path):
    with Recorder(Route(0, "127.0.0.1", server), tmp_path) as recorder:
        assert [_ask(recorder.address) for _ in range(3)] == [ANSWERED] * 3
        assert recorder.connections == 3

    assert [hit.place[-8:] for hit in scan(ASKED, tmp_path)] == ["001-sent", "002-sent", "003-sent"]
    assert len(scan(ANSWERED, tmp_path)) == 3


def test_open_connections_end_with_the_recorder(server, tmp_path):
    with Recorder(Route(0, "127.0.0.1", server), tmp_path) as recorder:
        host, port = recorder.address.split(":")
        client = socket.create_connection((host, int(port)), timeout=5)
        while recorder.connections == 0:
            time.sleep(0.01)

    with closing(client):
        assert client.recv(1) == b""


def test_a_server_that_is_away_closes_the_connection(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

    with Recorder(Route(0, "127.0.0.1", port), tmp_path) as recorder:
        host, port = recorder.address.split(":")
        with closing(socket.create_connection((host, int(port)), timeout=5)) as client:
            assert client.recv(1) == b""
        assert recorder.connections == 0
