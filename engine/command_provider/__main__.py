"""Starts the provider: `python -m engine.command_provider ENGINE_ADDRESS`."""

import asyncio
import logging
import sys

from engine.command_provider.server import Provider
from engine.protocol import provider_pb2
from engine.serving import EngineLog, engine_address, serve, service_handler


async def _main() -> None:
    provider = Provider(EngineLog(engine_address(sys.argv[1:])))
    service = provider_pb2.DESCRIPTOR.services_by_name["ResourceProvider"]
    await serve(service_handler(service, provider), provider.close)


def main() -> None:
    """Serve until the CLI ends."""
    # What asyncssh has to say goes into errors; its warnings would only reach a hidden stream.
    logging.disable(logging.CRITICAL)
    asyncio.run(_main())


if __name__ == "__main__":
    main()
