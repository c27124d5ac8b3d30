"""Asks a pod over HTTP."""

from urllib.parse import quote

import aiohttp

from openclaw_operator.cluster.port import UnreachableError
from openclaw_operator.tiers import Question

TIMEOUT = 2.0
"""Seconds for a whole answer: it is a page of JSON that costs a server nothing."""
MAX_BYTES = 512 << 10
"""Bytes of an answer that are read: statistics have an entry of about 60 bytes for each size of a batch."""


class HttpPods:
    """Implements `cluster.port.Pods`.

    It asks nobody but the address it is given: no redirect is followed, and no proxy of the environment is used.
    Nothing is kept from one question to the next, neither connections nor cookies.
    """

    async def statistics(self, question: Question) -> bytes:
        host = f"[{question.host}]" if ":" in question.host else question.host
        url = f"http://{host}:{question.port}/v2/models/{quote(question.model, safe='')}/stats"
        try:
            return await _read(url)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise UnreachableError(f"{url}: {str(error) or type(error).__name__}") from error


async def _read(url: str) -> bytes:
    async with (
        aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(force_close=True),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=TIMEOUT),
            # What is packed could become as large as it likes.
            auto_decompress=False,
            trust_env=False,
        ) as session,
        session.get(url, headers={"Accept-Encoding": "identity"}, allow_redirects=False) as response,
    ):
        if response.status != 200:
            return b""
        body = bytearray()
        async for part in response.content.iter_any():
            body += part
            if len(body) > MAX_BYTES:
                return b""
        return bytes(body)
