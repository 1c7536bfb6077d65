"""What aiohttp serves: it reads the body, and says how long it was."""

import sys

from aiohttp import web


async def answer(request):
    return web.Response(text=f"{len(await request.read())}\n")


site = web.Application(client_max_size=1 << 20)
site.router.add_route("*", "/{path:.*}", answer)

if __name__ == "__main__":
    web.run_app(site, host="127.0.0.1", port=int(sys.argv[1]), keepalive_timeout=2.0, print=None)
