"""common/process/monitoring/http_server.py: requests as a client sends them over a real socket."""

from __future__ import annotations

import http.client
import socket
import struct
import threading
from collections.abc import Iterator

import pytest

from common.process.monitoring.http_server import TEXT, HttpServer, Request, Response

pytestmark = pytest.mark.slow


class Site:
    """A server whose answers tell what was asked, and which fails on demand."""

    def __init__(self) -> None:
        self.asked: list[Request] = []
        self.sent = threading.Event()
        self.server = HttpServer("127.0.0.1", 0, self._answer, "--port")

    def _answer(self, request: Request) -> Response:
        self.asked.append(request)
        if request.path == "/fails":
            raise ValueError("no page today")
        return Response(200, TEXT, b"x" * 20_000_000 if request.path == "/long" else b"page", self.sent.set)

    def get(self, path: str, method: str = "GET") -> tuple[int, bytes, str]:
        """Returns status, body and Content-Length."""
        connection = http.client.HTTPConnection(self.address, timeout=5)
        connection.request(method, path)
        answer = connection.getresponse()
        found = answer.status, answer.read(), answer.headers["Content-Length"]
        connection.close()
        return found

    @property
    def address(self) -> str:
        return self.server.url.removeprefix("http://").rstrip("/")


@pytest.fixture
def site() -> Iterator[Site]:
    made = Site()
    made.server.start()
    yield made
    made.server.close()


def test_path_query_and_host_are_asked_for(site: Site) -> None:
    assert site.get("/a/b?c=d&e") == (200, b"page", "4")
    assert site.asked == [Request("/a/b", "c=d&e", site.address)]
    assert site.sent.wait(5.0)


def test_head_sends_no_body(site: Site) -> None:
    assert site.get("/", "HEAD") == (200, b"", "4")
    assert not site.sent.is_set()


def test_an_answer_that_fails_is_one_line_of_the_log(
    site: Site, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    assert site.get("/fails")[0] == 500
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == [
        "request failed path=/fails error=ValueError('no page today')"
    ]
    assert "Traceback" not in capfd.readouterr().err
    assert site.get("/")[0] == 200


def test_a_client_that_goes_away_leaves_no_trace(site: Site, capfd: pytest.CaptureFixture[str]) -> None:
    host, port = site.address.split(":")
    with socket.create_connection((host, int(port))) as client:
        client.sendall(b"GET /long HTTP/1.0\r\n\r\n")
        assert client.recv(1)
        # Closing with a pending answer resets the connection, so that the server's next write fails.
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert site.get("/")[0] == 200
    site.server.close()
    assert capfd.readouterr().err == ""


def test_a_server_that_was_never_started_can_be_closed() -> None:
    Site().server.close()
