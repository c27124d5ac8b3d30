"""Who does the work: of many processes that want the same result, one, agreed on in the store that they share.

A claim is an object ``claims/KEY/NUMBER``, created only where there is none: of two that try, the store lets one
succeed. Its holder writes it anew every few seconds. The others watch the newest one: a claim that has not changed for
long, by the watcher's own clock, is that of a process that died, and is taken over by creating the next number. So no
two clocks have to agree, and no more is asked of a store than to create conditionally (``If-None-Match: *`` and its
like), which those that are written to by s3://, gs:// and az:// do, and folders.

A holder that fails says so in its claim: those who wait would only run into the same. That holds for some minutes, and
not for a process with more memory, which may be what was lacking.
"""

from __future__ import annotations

import json
import logging
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Self, TypeVar

import obstore
from obstore import exceptions as store_errors

from openclaw.optimizer.results.place import FAILURES, Place, brief

log = logging.getLogger(__name__)

Result = TypeVar("Result")


@dataclass(frozen=True)
class Pace:
    """Seconds: between two signs of life, until a claim without any counts as left, between two looks of those who
    wait, and for which a failure is believed.
    """

    beat: float = 5.0
    stale: float = 30.0
    look: float = 1.0
    failure: float = 600.0


@dataclass(frozen=True)
class Failure:
    """Why the process that had the claim did not get to a result, in a sentence."""

    reason: str


@dataclass(frozen=True)
class _Seen:
    number: int
    content: bytes
    written: datetime


class Claims:
    """All claims to one key."""

    def __init__(self, place: Place, key: str, *, memory: int | None = None, pace: Pace | None = None) -> None:
        """
        Args:
            place: where the result is shared.
            key: of the result.
            memory: bytes that this process may take at most; None: no limit.
            pace: how fast everything goes; the same for all who share the place.
        """
        self.pace = pace or Pace()
        self._place, self._memory = place, memory
        self._folder = place.path(f"claims/{key}")
        self._holder = uuid.uuid4().hex

    def contend(self, done: Callable[[], Result | None], *, seconds: float) -> Result | Claim | Failure:
        """Waits for whoever is at it, or takes the claim: returns a result, the claim, or why there is no result.

        Args:
            done: looks for the result; asked whenever nobody is at it.
            seconds: to wait at most.

        Raises:
            TimeoutError: somebody was still at it.
            obstore's errors, OSError: the store does not answer, or cannot do what is needed.
        """
        ends = time.monotonic() + seconds
        watched: _Seen | None = None
        since = 0.0
        while True:
            newest = self._newest()
            if newest is None and (result := done()) is not None:
                return result
            now = time.monotonic()
            if newest is None or self._is_over(newest) or (newest == watched and now - since >= self.pace.stale):
                claim = self._create(1 if newest is None else newest.number + 1)
                if claim is not None:
                    return claim
            elif (reason := _failure(newest)) is not None:
                return Failure(reason)
            elif newest != watched:
                watched, since = newest, now
            if now >= ends:
                raise TimeoutError(f"somebody else was still at it after {seconds:.0f} s")
            threading.Event().wait(min(self.pace.look, max(0.0, ends - now)))

    def fail(self, number: int, reason: str) -> None:
        """Says in a claim of ours why nothing will come of it; that it cannot be said is only logged."""
        try:
            self._write(number, beat=-1, failure=reason[:1000])
        except FAILURES as error:
            log.warning("the failure cannot be told to those who wait: %s", brief(error))

    def release(self, number: int) -> None:
        """Removes a claim of ours and all before it, oldest first: who looks meanwhile still sees the newest."""
        try:
            for found in sorted(found for found in self._numbers() if found <= number):
                obstore.delete(self._place.store, self._path(found))
        except FAILURES as error:
            log.warning("the claim cannot be removed, and is left to grow stale: %s", brief(error))

    def beat(self, number: int, count: int) -> None:
        """A sign of life; that it cannot be given is only logged: another one follows."""
        try:
            self._write(number, beat=count)
        except FAILURES as error:
            log.warning("the claim cannot be renewed: %s", brief(error))

    def _create(self, number: int) -> Claim | None:
        try:
            self._write(number, beat=0, mode="create")
        except store_errors.AlreadyExistsError:
            return None
        return Claim(self, number)

    def _write(self, number: int, *, beat: int, failure: str | None = None, mode: str = "overwrite") -> None:
        document = {"holder": self._holder, "beat": beat, "failure": failure, "memory": self._memory}
        content = json.dumps(document).encode()
        obstore.put(self._place.store, self._path(number), content, mode="create" if mode == "create" else "overwrite")

    def _newest(self) -> _Seen | None:
        number = max(self._numbers(), default=None)
        if number is None:
            return None
        try:
            found = obstore.get(self._place.store, self._path(number))
            return _Seen(number, bytes(found.bytes()), found.meta["last_modified"])
        except FileNotFoundError:
            return None  # released since it was listed

    def _numbers(self) -> list[int]:
        try:
            listed = obstore.list(self._place.store, prefix=self._folder).collect()
        except FileNotFoundError:
            return []
        names = [str(each["path"]).rpartition("/")[2] for each in listed]
        return [int(name) for name in names if name.isdecimal()]

    def _path(self, number: int) -> str:
        return f"{self._folder}/{number:06d}"

    def _is_over(self, seen: _Seen) -> bool:
        """Whether a failure was long ago, or met somebody with less memory."""
        if _failure(seen) is None:
            return False
        theirs = _document(seen).get("memory")
        richer = isinstance(theirs, int) and (self._memory is None or self._memory > theirs)
        return richer or (datetime.now(UTC) - seen.written).total_seconds() > self.pace.failure


class Claim:
    """A claim that this process has: alive while the block runs, from a thread of its own.

    A block that is left by an exception leaves the claim as it is: say why with :meth:`fail`.
    """

    def __init__(self, claims: Claims, number: int) -> None:
        self.number = number
        self._claims = claims
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._live, name="claim", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def release(self) -> None:
        """Gives it up: the result is there, or others may try."""
        self._silence()
        self._claims.release(self.number)

    def fail(self, reason: str) -> None:
        """Tells those who wait that there will be no result, and why."""
        self._silence()
        self._claims.fail(self.number, reason)

    def _silence(self) -> None:
        """No sign of life may come after the last word."""
        self._over.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _live(self) -> None:
        count = 0
        while not self._over.wait(self._claims.pace.beat):
            count += 1
            self._claims.beat(self.number, count)


def _document(seen: _Seen) -> dict[str, object]:
    """What a claim says; nothing where it is none of ours."""
    try:
        document = json.loads(seen.content)
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


def _failure(seen: _Seen) -> str | None:
    reason = _document(seen).get("failure")
    return reason if isinstance(reason, str) else None
