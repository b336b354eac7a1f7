"""The kernels of one socket read: WebSocket frames, JSON grammar, decimals, arbitration. Pure."""
