"""A connection that another process has accepted, as a transport of this one."""

import asyncio
import socket
from typing import Any

import aiofastnet


async def transport_of(sock: socket.socket) -> Any:
    """None when the other end has gone in the meantime; the socket is closed then."""
    try:
        sock.setblocking(False)
        transport, _ = await aiofastnet.connect_accepted_socket(
            asyncio.get_running_loop(), asyncio.Protocol, sock
        )
    except OSError:
        sock.close()
        return None
    return None if transport.is_closing() else transport
