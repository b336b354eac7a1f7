"""The listening sockets of the one port. Apart from the front: a supervisor opens them and needs no more."""

import errno
import socket

from tradeback.model.errors import StartupError

BACKLOG = 1_024


def bind(host: str, port: int) -> list[socket.socket]:
    """Listening sockets on every address of `host`, all on one port (0: any free one).

    StartupError with the remedy when the address cannot be had.
    """
    sockets: list[socket.socket] = []
    missing: OSError | None = None
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, _, _, _, address in dict.fromkeys(found):
            chosen = sockets[0].getsockname()[1] if sockets else port
            try:
                sockets.append(_listen(family, (address[0], chosen, *address[2:])))
            except OSError as error:
                if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                    raise
                missing = error  # localhost names ::1 on machines without IPv6, too
        if missing is not None and not sockets:
            raise missing
    except (OSError, OverflowError) as error:
        for sock in sockets:
            sock.close()
        raise StartupError(_remedy(host, port, error)) from error
    return sockets


def _listen(family: int, address: tuple[object, ...]) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(address)
        sock.listen(BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock


def _remedy(host: str, port: int, error: OSError | OverflowError) -> str:
    where = f"{host}:{port}"
    code = getattr(error, "errno", None)
    if code == errno.EADDRINUSE:
        return f"port {port} on {host} is in use: stop what listens there, or set SERVER_PORT to a free port"
    if code in (errno.EACCES, errno.EPERM):
        return f"not allowed to listen on {where}: lower ports need a privilege; set SERVER_PORT above 1023"
    if code == errno.EADDRNOTAVAIL or isinstance(error, socket.gaierror):
        return f"{host} is no address of this machine: set SERVER_HOST to 127.0.0.1, or to 0.0.0.0 for all"
    return f"cannot listen on {where}: {error}; set SERVER_HOST and SERVER_PORT"
