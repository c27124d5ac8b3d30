"""`python -m openclaw_operator.local PORT`: the daemon that `openclaw local up --detach` starts."""

import asyncio
import logging
import os
import sys

from openclaw_operator.local.daemon import LOG_FORMAT, Daemon
from openclaw_operator.local.failures import GatewayError
from openclaw_operator.local.home import Home


async def main(port: int) -> int:
    home = Home.of_user(os.environ)
    home.prepare()
    if not await home.acquire():
        return 0  # another daemon was faster: its caller will talk to that one
    try:
        await Daemon(home, port=port).run(lambda: None)
    except GatewayError as error:
        logging.getLogger(__name__).error("%s", error)
        return 1
    return 0


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format=LOG_FORMAT)
    sys.exit(asyncio.run(main(int(sys.argv[1]))))
