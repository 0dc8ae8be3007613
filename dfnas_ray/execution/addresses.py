"""Addresses of dashboards: checks of their form, and of who else can read what is sent there."""

from __future__ import annotations

import ipaddress
import os
import urllib.request
from urllib.parse import SplitResult, urlsplit

from dfnas_ray.errors import ClusterError, shortened

DEFAULT_DASHBOARD = "http://127.0.0.1:8265"


def dashboard_address(url: str) -> str:
    """Return a dashboard's address with its scheme.

    Raises:
        ClusterError: the address is malformed, or holds a password, which would be shown and logged.
    """
    text = url if "://" in url else f"http://{url}"
    parts = _split(text)
    if parts is None or parts.scheme not in ("http", "https") or not parts.hostname or not text.isprintable():
        shown = "given" if "@" in url else shortened(url, 100)
        raise ClusterError(
            f"--dashboard {shown} must be the address of a Ray dashboard, such as {DEFAULT_DASHBOARD}: jobs are submitted over "
            "HTTP."
        )
    if parts.username is not None or parts.password is not None:
        raise ClusterError(
            f"--dashboard holds a user name or a password for {parts.hostname}; it would be shown and logged. Leave it out: a "
            "cluster's token is read from RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH or ~/.ray/auth_token."
        )
    return text.rstrip("/")


def keep_from_proxies(url: str) -> None:
    """Exclude an address on this machine from proxies: a proxy would see the token."""
    parts = _split(url)
    host = parts.hostname if parts is not None else None
    if host is None or not is_loopback(host):
        return
    for name in ("no_proxy", "NO_PROXY"):
        others = [each for each in os.environ.get(name, "").split(",") if each.strip()]
        if host not in others and "*" not in others:
            os.environ[name] = ",".join([*others, host])


def who_sees_the_token(url: str) -> str | None:
    """Return a warning if others can read a token that is sent to this address; None if they cannot."""
    parts = _split(url)
    if parts is None or parts.scheme != "http" or parts.hostname is None or is_loopback(parts.hostname):
        return None
    proxy = urllib.request.getproxies().get("http")
    by_proxy = bool(proxy) and not urllib.request.proxy_bypass(parts.hostname)
    through = ", and through the proxy that http_proxy names" if by_proxy else ""
    tunnel = f"ssh -L 8265:127.0.0.1:{parts.port or 80} {parts.hostname}"
    return (
        f"The cluster's token goes to {parts.hostname} without encryption{through}: anyone on the way can read it. A "
        f"tunnel keeps it private: {tunnel}, and --dashboard {DEFAULT_DASHBOARD}."
    )


def is_loopback(host: str) -> bool:
    """Return whether a host's name or IP address means this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower().rstrip(".") == "localhost"


def _split(text: str) -> SplitResult | None:
    try:
        parts = urlsplit(text)
        return parts if parts.port is None or parts.port > 0 else None
    except ValueError:  # an invalid port, or half an IPv6 address
        return None
