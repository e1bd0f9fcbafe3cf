#!/opt/shoal/bin/python -IS
"""Asks this container's process whether it is alive (/healthz) and can do its work (/readyz); exit code 1 if not.

What it prints is what `docker inspect` shows of the last checks: why the process is not well, in its own words.
It is started every few seconds in every container, so it imports next to nothing: a third of http.client's time.
"""

import os
import socket
import sys

TIMEOUT_S = 2.0


def complaint(port: int, path: str) -> str:
    """Returns what is wrong; empty when nothing is."""
    try:
        with socket.create_connection(("127.0.0.1", port), TIMEOUT_S) as connection:
            connection.sendall(f"GET {path} HTTP/1.0\r\n\r\n".encode())
            with connection.makefile("rb") as answer:
                head, _, body = answer.read(4_000).partition(b"\r\n\r\n")
    except OSError as e:
        return f"port {port} does not answer: {e}"
    if b" 200 " in head.partition(b"\r\n")[0]:
        return ""
    return body.decode(errors="replace").strip() or f"{path}: {head!r}"


def main() -> None:
    """Prints the first complaint, if there is one, and ends the process."""
    port = int(os.environ["SHOAL_METRICS_PORT"])
    wrong = complaint(port, "/healthz") or complaint(port, "/readyz")
    print(wrong or "ok")  # noqa: T201
    sys.exit(1 if wrong else 0)


main()
