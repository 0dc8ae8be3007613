"""A real S3 server on the loopback, which can be told to fail."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

_ERROR = "<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message></Error>"


@dataclass
class S3Server:
    """Where it listens, and how it answers: "works", "overloaded" (503) or "forbids" (403)."""

    port: int = 0
    mode: str = "works"
    refused: int = 0
    requests: list[tuple[str, str]] = field(default_factory=list)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def uri(self, path: str) -> str:
        """A URI that names this server."""
        return f"s3://{path}?endpoint_override=127.0.0.1:{self.port}&scheme=http&region=us-east-1"


@contextmanager
def s3_server(*buckets: str) -> Iterator[S3Server]:
    """Start a server with some buckets, and stop it at the end."""
    state = S3Server()
    application = DomainDispatcherApplication(create_backend_app)

    def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        state.requests.append((environ["REQUEST_METHOD"], environ["PATH_INFO"]))
        failures = {
            "overloaded": ("503 Slow Down", "SlowDown", "Please reduce your request rate."),
            "forbids": ("403 Forbidden", "AccessDenied", "Access Denied"),
        }
        if state.mode == "works":
            return application(environ, start_response)
        status, code, message = failures[state.mode]
        state.refused += 1
        start_response(status, [("Content-Type", "application/xml")])
        return [_ERROR.format(code=code, message=message).encode()]

    server = make_server("127.0.0.1", 0, answer, threaded=True)
    state.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    import boto3

    client = boto3.client(
        "s3",
        endpoint_url=state.endpoint,
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
    )
    for bucket in buckets:
        client.create_bucket(Bucket=bucket)
    try:
        yield state
    finally:
        server.shutdown()
        thread.join()
