"""Whether a host is this one, as far as its name says: nothing is looked up."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def is_local_url(url: str) -> bool:
    return is_loopback(urlsplit(url).hostname or "")
