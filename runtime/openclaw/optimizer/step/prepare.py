"""The step before serving: a model is fetched and optimized once for all pods on machines of one kind.

Only what would keep the server from starting, too, ends this step: a model that is not there, or denied, or another
one than was asked for. Whatever else goes wrong, the model is served as it is, and the summary says why. So the work
is done by a process of its own that may crash, hang, or be killed for its memory. Where the kernel kills the whole
container with it, the container is started again, finds the job that was left, and does not try it a second time.
"""

from __future__ import annotations

import asyncio
import shutil
import signal
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from openclaw.config import ServerConfig
from openclaw.devices.cpu import read_grant
from openclaw.errors import StartupError
from openclaw.execute.threads import threads_of
from openclaw.optimizer.results.place import open_place
from openclaw.optimizer.step.claims import Claims
from openclaw.optimizer.step.job import CLAIM, JOB, Claimed, Job
from openclaw.optimizer.step.summary import Summary, failed
from openclaw.optimizer.surroundings import read_machine
from openclaw.storage.fetch import Limits, fetch, fetch_model
from openclaw.storage.prepared import digest_of, place_of
from openclaw.storage.uri import parse

TIMEOUT = 600.0
"""Seconds that it may take to get to an optimized form, by default."""
TELLING_SECONDS = 10.0
"""For telling those who wait that nothing will come of it: a store that hangs must not keep the model from serving."""
MAX_CALIBRATION_BYTES = 2 << 30

_MEMORY = "most likely for its memory: raise resources.limits.memory, or optimize the model before it is uploaded"


@dataclass(frozen=True)
class Wanted:
    """What is asked of the step.

    Attributes:
        mode: ``fp32``: only forms with equal answers; ``auto``: all for which there is data to judge them on.
        cache: where results are shared, a folder or URI.
        folder: where the server looks for the form.
        calibration: URI of samples, as ``openclaw optimize`` takes them.
        accuracy_budget: as ``openclaw optimize`` takes it.
        seconds: that it may take, beside fetching the model.
    """

    mode: str
    cache: str
    folder: Path
    calibration: str | None = None
    accuracy_budget: str | None = None
    seconds: float = TIMEOUT


async def prepare(config: ServerConfig, wanted: Wanted, *, cache_dir: Path) -> Summary:
    """Has the server's model optimized, so that the server finds the form in ``wanted.folder``.

    Args:
        config: of the server; of several models only the first is optimized.
        wanted: what to do.
        cache_dir: where downloads are kept, shared with the server.

    Raises:
        StartupError: the server could not be started, either.
    """
    batch = config.model.batching.max_batch_size
    step = _Step(wanted, threads=threads_of(config), max_batch_size=batch, cache_dir=cache_dir)
    model = await fetch_model(config.model, cache_dir)
    try:
        return await step.summary(model)
    except (StartupError, OSError) as error:
        return step.failed(str(error))
    finally:
        shutil.rmtree(step.work, ignore_errors=True)


class _Step:
    def __init__(self, wanted: Wanted, *, threads: int, max_batch_size: int, cache_dir: Path) -> None:
        self.work = wanted.folder / "work"
        self._wanted, self._threads, self._cache_dir = wanted, threads, cache_dir
        self._max_batch_size = max_batch_size

    async def summary(self, model: Path) -> Summary:
        """Has it optimized, in the time there is."""
        began = time.monotonic()
        if (self.work / JOB).exists():
            reason = f"the container ended while it optimized, {_MEMORY}"
            await self._tell_others(self.work / CLAIM, reason)
            return self.failed(reason)
        self.work.mkdir(parents=True, exist_ok=True)
        digest = await asyncio.to_thread(digest_of, model)
        calibration = await self._calibration()
        left = max(0.0, self._wanted.seconds - (time.monotonic() - began))
        job = Job(
            model=model,
            mode=self._wanted.mode,
            calibration=calibration,
            accuracy_budget=self._wanted.accuracy_budget,
            cache=self._wanted.cache,
            threads=self._threads,
            max_batch_size=self._max_batch_size,
            # Who waits for another one is to say so before the time is over.
            seconds=0.9 * left,
            # Tried while it lasts: what was begun when a quarter was over takes its time.
            time_limit=self._wanted.seconds / 4,
            form=place_of(self._wanted.folder, digest),
            folder=self.work,
        )
        job.file.write_text(job.model_dump_json(), encoding="utf-8")
        return await self._done(job, left)

    def failed(self, reason: str) -> Summary:
        """The model is served as it is."""
        return failed(reason, self._wanted.mode, read_machine(self._threads))

    async def _calibration(self) -> Path | None:
        """The samples as a local file or folder, under a name that is the same for all who share a result."""
        if self._wanted.calibration is None:
            return None
        uri = parse(self._wanted.calibration)
        if uri.scheme == "file":
            return Path(uri.path)
        limits = Limits(timeout_seconds=max(1.0, self._wanted.seconds / 2), max_bytes=MAX_CALIBRATION_BYTES)
        try:
            fetched = await fetch(uri, cache_dir=self._cache_dir, limits=limits)
        except StartupError as error:
            raise type(error)(f"calibration: {error}") from error
        link = self.work / "calibration.npz"
        link.unlink(missing_ok=True)
        link.symlink_to(fetched.absolute())
        return link

    async def _done(self, job: Job, seconds: float) -> Summary:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "openclaw.optimizer.step.attempt", str(job.file)),
            stdin=asyncio.subprocess.DEVNULL,
        )
        try:
            async with asyncio.timeout(seconds):
                code = await process.wait()
            reason = _ending(code)
        except TimeoutError:
            reason = f"it took longer than the {self._wanted.seconds:g} s of spec.runtime.optimize.timeoutSeconds"
        except asyncio.CancelledError:
            await _killed(process)
            await self._tell_others(job.claimed, None)
            raise
        finally:
            await _killed(process)
        try:
            return Summary.model_validate_json(job.told.read_bytes())
        except (OSError, ValueError):
            job.form.unlink(missing_ok=True)
            await self._tell_others(job.claimed, reason)
            return self.failed(reason)

    async def _tell_others(self, claimed: Path, reason: str | None) -> None:
        """Says in the claim of a process that died why nothing will come of it; without a reason, others may try."""
        told, loop = asyncio.Event(), asyncio.get_running_loop()

        def tell() -> None:
            _tell(claimed, reason)
            with suppress(RuntimeError):  # the loop ended meanwhile
                loop.call_soon_threadsafe(told.set)

        # No thread of the loop's: the loop waits for those when it ends, and a store that hangs would keep it.
        threading.Thread(target=tell, daemon=True).start()
        with suppress(TimeoutError):
            async with asyncio.timeout(TELLING_SECONDS):
                await told.wait()


def _tell(claimed: Path, reason: str | None) -> None:
    try:
        claim = Claimed.model_validate_json(claimed.read_bytes())
        claims = Claims(open_place(claim.cache, timeout=TELLING_SECONDS), claim.key, memory=read_grant().memory_bytes)
    except (OSError, ValueError, StartupError):
        return  # none was held
    if reason is None:
        claims.release(claim.number)
    else:
        claims.fail(claim.number, reason)


def _ending(code: int) -> str:
    if code == -signal.SIGKILL:
        return f"the optimizer was killed, {_MEMORY}"
    how = f"by {signal.Signals(-code).name}" if code < 0 else f"with code {code}"
    return f"the optimizer ended {how}; the log of the container optimize has its last words"


async def _killed(process: asyncio.subprocess.Process) -> None:
    """Ends a process that may have ended already."""
    with suppress(ProcessLookupError):
        process.kill()
    await process.wait()
