"""Probes over HTTP, as a kubelet makes them: a verdict changes only after so many answers of one sort in a row."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import aiohttp

from openclaw_operator.names import Manifest


@dataclass(frozen=True, slots=True)
class Check:
    """One probe of a container.

    Attributes:
        path: What is asked for.
        period: Seconds between two attempts.
        timeout: Seconds that an answer may take.
        failures: Failed attempts in a row that make it fail.
        successes: Successful attempts in a row that make it succeed.
        delay: Seconds before the first attempt.
    """

    path: str
    period: float
    timeout: float
    failures: int
    successes: int
    delay: float

    @classmethod
    def of(cls, container: Manifest, name: str) -> "Check | None":
        """The container's probe of that name, with Kubernetes' defaults for what it leaves out."""
        probe: dict[str, Any] | None = container.get(name)
        if not probe or "httpGet" not in probe:
            return None
        return cls(
            path=probe["httpGet"].get("path", "/"),
            period=float(probe.get("periodSeconds", 10)),
            timeout=float(probe.get("timeoutSeconds", 1)),
            failures=int(probe.get("failureThreshold", 3)),
            successes=int(probe.get("successThreshold", 1)),
            delay=float(probe.get("initialDelaySeconds", 0)),
        )


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the attempts so far say.

    Attributes:
        passing: True or False once enough attempts in a row agree; None before.
        run: Length of the present run of equal answers.
        last: The last answer.
        detail: What the last failed attempt met.
    """

    passing: bool | None = None
    run: int = 0
    last: bool | None = None
    detail: str = ""


def judged(check: Check, before: Verdict, *, failure: str) -> Verdict:
    """The verdict after one more attempt; an empty `failure` is a success."""
    succeeded = not failure
    run = before.run + 1 if before.last is succeeded else 1
    enough = run >= (check.successes if succeeded else check.failures)
    return Verdict(succeeded if enough else before.passing, run, succeeded, failure or before.detail)


async def verdicts(check: Check, port: int, session: aiohttp.ClientSession) -> AsyncIterator[Verdict]:
    """The verdict after each attempt, for ever."""
    await asyncio.sleep(check.delay)
    loop = asyncio.get_running_loop()
    verdict = Verdict()
    while True:
        began = loop.time()
        verdict = judged(check, verdict, failure=await _attempt(check, port, session))
        yield verdict
        await asyncio.sleep(max(began + check.period - loop.time(), 0.0))


async def _attempt(check: Check, port: int, session: aiohttp.ClientSession) -> str:
    try:
        timeout = aiohttp.ClientTimeout(total=check.timeout)
        async with session.get(f"http://127.0.0.1:{port}{check.path}", timeout=timeout) as response:
            return "" if response.status < 400 else f"{check.path} answered {response.status}"
    except TimeoutError:
        return f"{check.path} did not answer within {check.timeout:g} s"
    except aiohttp.ClientError as error:
        return f"{check.path} could not be asked: {error}"
