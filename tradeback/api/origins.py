"""Who is at the other end: the client behind trusted proxies, and the site whose page asks. Pure."""

import ipaddress
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from urllib.parse import urlsplit

HeaderValues = Callable[[str], Sequence[str]]
"""All values of a header by its lower-case name, in order."""
ANY = "*"
IPV6_CLIENT_BITS = 64
"""What one subscriber line has of IPv6; a client with 2**64 addresses is one client."""
_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}


@dataclass(frozen=True, slots=True)
class Peer:
    """The client of a request."""

    address: str
    secure: bool
    """It uses TLS, as a trusted proxy says."""
    host: str
    """What it calls this server: Host."""

    @property
    def key(self) -> str:
        """Whom limits count: the address, of IPv6 its /64. An address of IPv4 that is written as one of IPv6
        is that of IPv4."""
        try:
            address = ipaddress.ip_address(self.address.partition("%")[0])
        except ValueError:
            return self.address
        if address.version == 4:
            return self.address
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((address, IPV6_CLIENT_BITS), strict=False))


class Proxies:
    """Takes the word of proxies in these networks, and of nobody else."""

    def __init__(self, networks: Sequence[str]) -> None:
        self._networks = [ipaddress.ip_network(text) for text in networks]

    def client(self, peer: str, headers: HeaderValues) -> Peer:
        """The client of a connection from `peer`.

        X-Forwarded-For is read from its end, where the nearest proxy has written: the first address that is
        no trusted proxy's is the client, whatever it has written in front of it itself.
        """
        host = _last(headers("host"))
        if not self._networks or not self._trusts(peer):
            return Peer(peer, False, host)
        address = peer
        for hop in reversed(_words(headers("x-forwarded-for"))):
            found = _address(hop)
            if found is None:
                break
            address = found
            if not self._trusts(found):
                break
        secure = _last(_words(headers("x-forwarded-proto"))).lower() in ("https", "wss")
        return Peer(address, secure, _last(_words(headers("x-forwarded-host"))) or host)

    def _trusts(self, text: str) -> bool:
        try:
            address = ipaddress.ip_address(text.partition("%")[0])
        except ValueError:
            return False
        mapped = getattr(address, "ipv4_mapped", None)
        return any((mapped or address) in network for network in self._networks)


class Site(Enum):
    """Whose page asks."""

    NONE = "none"
    """No browser's, or a browser that sees no need to tell."""
    SAME = "same"
    LISTED = "listed"
    ANYONE = "anyone"
    """Some other site, and all may: without the visitor's session."""
    FOREIGN = "foreign"


class Origins:
    """Judges Origin headers by the list of the configuration."""

    def __init__(self, listed: Sequence[str]) -> None:
        self._listed = frozenset(listed) - {ANY}
        self._any = ANY in listed

    def judge(self, origins: Sequence[str], peer: Peer) -> Site:
        """`origins`: all Origin headers of the request; more than one is nobody's honest request."""
        if not origins:
            return Site.NONE
        if len(origins) > 1:
            return Site.FOREIGN
        origin = origins[0].lower()
        if _is_same(origin, peer):
            return Site.SAME
        if origin in self._listed:
            return Site.LISTED
        return Site.ANYONE if self._any else Site.FOREIGN


def _is_same(origin: str, peer: Peer) -> bool:
    try:
        parts = urlsplit(origin)
        port = parts.port
        called = urlsplit(f"//{peer.host.lower()}")
        called_port = called.port
    except ValueError:
        return False
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return False
    if peer.secure and parts.scheme != "https":
        return False
    default = _PORTS[parts.scheme]
    return (parts.hostname, port or default) == (called.hostname, called_port or default)


def cookie_of(headers: Sequence[str], name: str) -> str:
    """The value of a cookie in Cookie headers; the first of several; empty when there is none."""
    for header in headers:
        for pair in header.split(";"):
            held, sign, value = pair.partition("=")
            if sign and held.strip() == name:
                return value.strip().strip('"')
    return ""


def bearer_of(headers: Sequence[str]) -> str:
    """The token of an Authorization header; empty when there is none."""
    if len(headers) != 1:
        return ""
    scheme, _, token = headers[0].strip().partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def _words(values: Sequence[str]) -> list[str]:
    return [word for value in values for word in (part.strip() for part in value.split(",")) if word]


def _last(values: Sequence[str]) -> str:
    return values[-1] if values else ""


def _address(text: str) -> str | None:
    """An address as proxies write it, with or without a port; None for anything else."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        return str(ipaddress.ip_address(text.partition("%")[0]))
    except ValueError:
        return None
