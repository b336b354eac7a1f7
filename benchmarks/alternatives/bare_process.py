"""What a start costs before any work is done: a process with uvloop, aiohttp and numba, and one route.

Run as a script: prints `{"http": ...}` when it listens and `ready` when numba is imported, as tradeback
does both in this order.
"""

import asyncio
import json


async def main() -> None:
    """Serve until killed."""
    from aiohttp import web

    async def health(_: web.Request) -> web.Response:
        return web.Response(text="ok")

    app = web.Application()
    app.router.add_get("/health", health)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    print(json.dumps({"http": f"http://{host}:{port}"}), flush=True)
    import numba

    print(json.dumps({"ready": numba.__version__}), flush=True)
    await asyncio.get_running_loop().create_future()


if __name__ == "__main__":
    import uvloop

    uvloop.run(main())
