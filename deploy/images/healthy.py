#!/opt/shoal/bin/python -IS
"""Checks whether this container's process is alive (/healthz) and ready (/readyz); exits with code 1 if not.

`docker inspect` shows the output of the last checks, which contains the reason that the process reports. The check runs
every few seconds in every container, so it imports little: with http.client it would take three times as long.
"""

import os
import socket
import sys

TIMEOUT_S = 2.0


def check(port: int, path: str) -> str:
    """Returns the problem that the process reports at a path; empty if it reports none."""
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
    """Prints the first problem, or "ok", and ends the process."""
    port = int(os.environ["SHOAL_METRICS_PORT"])
    problem = check(port, "/healthz") or check(port, "/readyz")
    print(problem or "ok")  # noqa: T201
    sys.exit(1 if problem else 0)


main()
