"""Starts the language host: `python -m engine.language_host ENGINE_ADDRESS`."""

import asyncio
import sys

from engine.language_host.server import LanguageHost
from engine.protocol import language_pb2
from engine.serving import engine_address, serve, service_handler


async def _main() -> None:
    host = LanguageHost(engine_address(sys.argv[1:]))
    service = language_pb2.DESCRIPTOR.services_by_name["LanguageRuntime"]
    await serve(service_handler(service, host), host.close)


def main() -> None:
    """Serve until the CLI ends."""
    asyncio.run(_main())


if __name__ == "__main__":
    main()
