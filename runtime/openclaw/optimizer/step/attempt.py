"""The process that optimizes for the step before serving: ``python -m openclaw.optimizer.step.attempt JOB.json``.

It may be killed at any time, for its memory above all, without harm: what it has to say is written in one step, and
last of all. What only optimizing needs is imported where a missing package becomes a sentence.
"""

from __future__ import annotations

import logging
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from openclaw.devices.cpu import read_grant
from openclaw.errors import StartupError
from openclaw.optimizer.results.place import FAILURES, Place, brief, is_there, open_place
from openclaw.optimizer.step.claims import Claim, Claims, Failure
from openclaw.optimizer.step.job import Claimed, Job
from openclaw.optimizer.step.summary import Summary, failed, summary_of
from openclaw.optimizer.surroundings import read_machine

if TYPE_CHECKING:
    from openclaw.optimizer.results.cache import Cache
    from openclaw.optimizer.results.result import Result
    from openclaw.optimizer.task import Task

log = logging.getLogger(__name__)

ANSWER_SECONDS = 10.0
"""For a small answer of the cache's store: one that hangs is not waited for until all time is over."""


def main() -> None:
    """Does the job, and tells what came of it; ends with 0 unless that could not be told."""
    # What the libraries do step by step is no news.
    logging.basicConfig(level=logging.WARNING, format="%(levelname)-7s %(message)s", stream=sys.stderr)
    _die_first()
    job = Job.read(Path(sys.argv[1]))
    summary = attempted(job)
    part = job.told.with_suffix(".part")
    part.write_text(summary.model_dump_json(by_alias=True), encoding="utf-8")
    part.replace(job.told)


def attempted(job: Job) -> Summary:
    """Does a job. Whatever goes wrong is told as the reason for which the model is served as it is."""
    try:
        return _attempt(job)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        reason = f"optimizing needs {package}, which is not installed: pip install 'openclaw[optimize]'"
    except StartupError as error:
        reason = str(error)
    except TimeoutError:
        limit = "spec.runtime.optimize.timeoutSeconds"
        reason = f"another pod was still optimizing it after {job.seconds:.0f} s, nearly all of {limit}"
    except FAILURES as error:
        reason = f"the cache {job.cache} cannot be used to agree on who optimizes: {brief(error)}"
    except Exception as error:
        # The model is the user's, and passes and kernels raise anything.
        log.exception("the optimizer failed")
        reason = _sentence(error)
    return failed(reason, job.mode, read_machine(job.threads))


def _attempt(job: Job) -> Summary:
    import onnx

    from openclaw.optimizer.results.cache import Cache
    from openclaw.optimizer.results.files import write_model

    cache, key = Cache(job.cache), _key_of(job)
    place = open_place(job.cache, timeout=ANSWER_SECONDS)

    def found_in_cache() -> Result | None:
        # Where the exported model is kept nothing is written, and so what it is does not matter here.
        return cache.load(key, onnx.ModelProto()) if is_there(place, key) else None

    result = found_in_cache()
    if result is None:
        claims = Claims(place, key, memory=read_grant().memory_bytes)
        found = claims.contend(found_in_cache, seconds=job.seconds)
        if isinstance(found, Failure):
            return failed(found.reason, job.mode, read_machine(job.threads))
        result = _optimized(job, found, cache=cache, place=place, key=key) if isinstance(found, Claim) else found
    if result.report.changed:
        job.form.parent.mkdir(parents=True, exist_ok=True)
        write_model(result, job.form)
    return summary_of(result.report, job.mode)


def _key_of(job: Job) -> str:
    key = _task(job).key()
    assert key is not None, "only a metric of the user's own has none"
    return key


def _task(job: Job) -> Task:
    """What the job asks for, with the model in memory: who only waits for another process should not hold it."""
    from openclaw.optimizer import options
    from openclaw.optimizer.model import source
    from openclaw.optimizer.task import Task

    chosen = options.checked(
        precision=job.mode,
        calibration=job.calibration,
        accuracy_budget=job.accuracy_budget,
        time_limit=job.time_limit,
        # Memory falls with the rows; a larger batch would only take longer to measure.
        max_batch_size=min(job.max_batch_size, options.MAX_BATCH_SIZE),
    )
    return Task(source.read(job.model), chosen, read_machine(job.threads))


def _optimized(job: Job, claim: Claim, *, cache: Cache, place: Place, key: str) -> Result:
    """Optimizes with the claim held; the cache is asked once more, as its entry may be younger than the last look."""
    from openclaw.optimizer.optimize import perform
    from openclaw.optimizer.progress import watching

    start = time.perf_counter()
    claimed = Claimed(cache=job.cache, key=key, number=claim.number)
    job.claimed.write_text(claimed.model_dump_json(), encoding="utf-8")
    with claim, watching() as watcher:
        try:
            result = perform(_task(job), cache=cache, watcher=watcher, start=start)
        except Exception as error:
            claim.fail(_sentence(error))
            raise
        if result.origin or _is_stored(place, key):
            claim.release()
        else:
            claim.fail(f"the result cannot be stored in the cache {job.cache}")
    job.claimed.unlink()
    return result


def _is_stored(place: Place, key: str) -> bool:
    try:
        return is_there(place, key)
    except FAILURES:
        return False


def _sentence(error: Exception) -> str:
    return str(error) if isinstance(error, StartupError) else f"the optimizer failed: {type(error).__name__}: {error}"


def _die_first() -> None:
    """Where memory runs out, this process goes, and not the one that passes the model on (proc(5), oom_score_adj)."""
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")


if __name__ == "__main__":
    main()
