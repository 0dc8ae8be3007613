"""Who sees what is sent to a dashboard."""

from __future__ import annotations

import http.server
import json
import os
import threading

import pytest

from dfnas_ray.errors import ClusterError
from dfnas_ray.execution.addresses import dashboard_address, is_loopback, keep_from_proxies, who_sees_the_token
from dfnas_ray.execution.ray.dashboard import Dashboard


@pytest.mark.parametrize(
    "url",
    ["ftp://host:1", "http://", "http://[::1", "http://host:0", "http://host:99999", "http://host:x", "", "//", "\x00"],
)
def test_what_is_no_address_is_named(url):
    with pytest.raises(ClusterError, match="must be the address of a Ray dashboard"):
        dashboard_address(url)


@pytest.mark.parametrize(
    "url", ["http://u:geheim@host:8265", "u:geheim@host:8265", "https://:geheim@host", "http://geheim@[::1"]
)
def test_a_password_is_refused_and_not_repeated(url):
    with pytest.raises(ClusterError) as raised:
        dashboard_address(url)
    assert "geheim" not in str(raised.value)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "localhost", "LOCALHOST.", "::1"])
def test_this_machine_is_known_by_its_names(host):
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["10.0.0.1", "localhost.evil.org", "head", "0x7f.1"])
def test_others_are_not_this_machine(host):
    assert not is_loopback(host)


def test_a_token_that_others_can_read_is_named(monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    assert who_sees_the_token("http://127.0.0.1:8265") is None
    assert who_sees_the_token("https://head") is None
    said = who_sees_the_token("http://head:8265")
    assert said.startswith("The cluster's token goes to head without encryption: anyone")
    assert "ssh -L 8265:127.0.0.1:8265 head" in said
    monkeypatch.setenv("http_proxy", "http://proxy:3128")
    assert "through the proxy that http_proxy names" in who_sees_the_token("http://head:8265")


class Answers(http.server.BaseHTTPRequestHandler):
    """A dashboard, or a proxy: remembers what it was asked, and with which token."""

    def do_GET(self):
        self.server.asked.append((self.path, self.headers.get("Authorization")))
        body = json.dumps({"ray_version": "2.60.0", "version": "4", "ray_commit": "x", "session_name": "x"}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def serve():
    servers = []

    def start():
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers)
        server.asked = []
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.shutdown()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_what_is_for_this_machine_goes_through_no_proxy(serve, monkeypatch, host):
    proxy, dashboard = serve(), serve()
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "example.org")
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.server_port}")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "geheim")
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    Dashboard(f"http://{host}:{dashboard.server_port}")
    assert proxy.asked == []
    assert dashboard.asked


def test_others_are_left_to_the_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "example.org")
    keep_from_proxies("http://head:8265")
    keep_from_proxies("http://[::1")
    assert os.environ["no_proxy"] == "example.org"
