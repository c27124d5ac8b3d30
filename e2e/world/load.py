"""Asks a served model at a constant rate until its own input ends; then prints what became of it, as JSON.

    python load.py URL BODY RATE

Runs in a pod, in the runtime's image, and so imports nothing of this repository. Requests leave on time whether or
not those before them were answered. Every other one has a connection of its own; the rest go over a few that are
kept, each used often, for a connection that idles while its server ends is the client's own risk.
"""

import asyncio
import contextlib
import json
import sys
import time
from collections import Counter
from dataclasses import dataclass, field

import aiohttp

KEPT = 5
SECONDS = 10.0
"""After which a request counts as failed."""


@dataclass
class Tally:
    """What came of the requests so far."""

    answers: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    milliseconds: list[float] = field(default_factory=list)
    connections: int = 0


async def ask(session: aiohttp.ClientSession, target: tuple[str, bytes], tally: Tally) -> None:
    """Send one request; an answer is told by its outputs, anything else is a failure."""
    url, body = target
    began = time.perf_counter()
    try:
        async with session.post(url, data=body, headers={"Content-Type": "application/json"}) as response:
            text = await response.text()
            if response.status == 200:
                tally.answers[json.dumps(json.loads(text)["outputs"])] += 1
            else:
                tally.failures.append(f"{response.status}: {text[:200]}")
    except (aiohttp.ClientError, TimeoutError, ValueError, KeyError) as error:
        tally.failures.append(f"{type(error).__name__}: {error}")
    tally.milliseconds.append((time.perf_counter() - began) * 1000)


async def until_input_ends() -> None:
    """Return when whoever started this closes its input."""
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while await reader.read(1024):
        pass


async def load(url: str, body: bytes, rate: float) -> Tally:
    """Ask `rate` times a second until the input ends, and wait for the last answers."""
    tally = Tally()
    done = asyncio.create_task(until_input_ends())
    timeout = aiohttp.ClientTimeout(total=SECONDS)
    trace = aiohttp.TraceConfig()

    async def connected(*_: object) -> None:
        tally.connections += 1

    trace.on_connection_create_end.append(connected)
    async with contextlib.AsyncExitStack() as stack:

        async def session(connector: aiohttp.TCPConnector) -> aiohttp.ClientSession:
            made = aiohttp.ClientSession(connector=connector, timeout=timeout, trace_configs=[trace])
            return await stack.enter_async_context(made)

        fresh = await session(aiohttp.TCPConnector(force_close=True, limit=0))
        kept = [await session(aiohttp.TCPConnector(limit=1)) for _ in range(KEPT)]
        began, sent = time.monotonic(), 0
        async with asyncio.TaskGroup() as requests:
            while not done.done():
                chosen = fresh if sent % 2 else kept[sent // 2 % KEPT]
                requests.create_task(ask(chosen, (url, body), tally))
                sent += 1
                if sent == rate:
                    print("running", flush=True)
                await asyncio.wait({done}, timeout=max(0.0, began + sent / rate - time.monotonic()))
    return tally


def main() -> None:
    """Run, and print the tally."""
    url, body, rate = sys.argv[1:]
    tally = asyncio.run(load(url, body.encode(), float(rate)))
    times = sorted(tally.milliseconds)
    result = {
        "answers": tally.answers,
        "failures": tally.failures,
        "connections": tally.connections,
        "p50": times[len(times) // 2],
        "p99": times[len(times) * 99 // 100],
        "slowest": times[-1],
    }
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
