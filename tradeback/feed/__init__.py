"""Sockets towards the clients: one port for HTTP and WebSocket, fan-out, slow readers."""
