"""One account of all memory that a process takes for its models: who holds how much, and how much there may be.

Whatever is large asks here before it allocates, and says when it is done. Nothing is allocated here, so what is
promised can be kept: who comes while the budget is used up is refused before it has cost anything.
"""

from __future__ import annotations

import sys
import threading
from collections import deque
from collections.abc import Callable
from enum import StrEnum
from types import TracebackType
from typing import NamedTuple, Protocol, Self

from openclaw.errors import OverBudget


class Level(StrEnum):
    """What kind of memory it is."""

    OBJECTS = "objects"
    """Buffers of this process: bodies of requests, batches."""
    LOCKED = "locked"
    """Pages that stay in memory: locked, or pinned for a device."""
    SHARED = "shared"
    """Segments that several processes see."""
    WEIGHTS = "weights"
    """What models are made of."""


class State(StrEnum):
    """What becomes of it."""

    USED = "used"
    """Somebody works with it."""
    KEPT = "kept"
    """It waits to be used again, and is given back when it is needed elsewhere."""


class Entry(NamedTuple):
    """One line of the account."""

    level: Level
    model: str
    state: State


class Ledger(Protocol):
    """Where the processes of one server tell each other what they have taken of the budget that is theirs together."""

    def tell(self, size: int) -> None:
        """This process has so many bytes."""

    def others(self) -> int:
        """Bytes that the others have, by what they told."""


class Claim:
    """Bytes that were granted to one holder, until it releases them. Also a context manager, which releases at its end.

    Attributes:
        size: bytes.
        entry: under which they are counted.
    """

    __slots__ = ("_account", "_open", "entry", "size")

    def __init__(self, account: Account, entry: Entry) -> None:
        self._account = account
        self._open = threading.Lock()
        self.entry = entry
        self.size = 0

    @property
    def released(self) -> bool:
        """Whether the bytes were given back."""
        return self._open.locked()

    def release(self) -> None:
        """Gives the bytes back. Waits for nothing, and so may be called on any thread, and by a finalizer.

        Raises:
            RuntimeError: they were given back before.
        """
        if not self._open.acquire(blocking=False):
            raise RuntimeError(f"{self.size} bytes of {self.entry.level} were released twice")
        self._account._returned.append(self)

    def turn(self, state: State, *, model: str | None = None) -> None:
        """Counts the bytes under another state, and for another model where one is given.

        Raises:
            RuntimeError: they were given back.
        """
        self._account._move(self, self.entry._replace(state=state, model=self.entry.model if model is None else model))

    def resize(self, size: int) -> None:
        """Holds ``size`` bytes from now on.

        Raises:
            OverBudget: they are more, and do not fit; the claim stays as it is.
            RuntimeError: the bytes were given back.
        """
        if size < 0:
            raise ValueError(f"size is {size}; bytes from 0 are needed")
        self._account._resize(self, size)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


class Account:
    """Grants bytes up to a budget; on any thread.

    Args:
        budget: bytes that may be taken in all; None: no bound.
        ledger: of the processes that share it. Weights are not told: forked processes have the same ones.
    """

    def __init__(self, budget: int | None = None, *, ledger: Ledger | None = None) -> None:
        if budget is not None and budget < 0:
            raise ValueError(f"budget is {budget}; bytes from 0 are needed")
        self.budget = budget
        self._ledger = ledger
        self._told = 0
        self._lock = threading.Lock()
        self._entries: dict[Entry, int] = {}
        self._total = 0
        self._peak = 0
        # A finalizer may run while this thread holds the lock: it only leaves a word here.
        self._returned: deque[Claim] = deque()
        self._keepers: list[Callable[[int], None]] = []

    def take(self, size: int, *, level: Level, model: str = "", state: State = State.USED) -> Claim:
        """Counts ``size`` bytes from now on; where they do not fit, what is kept for reuse is given back first.

        Args:
            size: bytes.
            level: what kind they are.
            model: for which model; empty: for none in particular.
            state: whether they are worked with or kept.

        Raises:
            OverBudget: they do not fit into the budget.
        """
        claim = Claim(self, Entry(level, model, state))
        claim.resize(size)
        return claim

    def on_shortage(self, give_back: Callable[[int], None]) -> None:
        """Has ``give_back`` called with the bytes that are missing before anybody is refused.

        It releases what it keeps, if it keeps anything; it is called on the thread of whoever asks, and may not take.
        """
        self._keepers.append(give_back)

    def used(self, level: Level | None = None, model: str | None = None, *, state: State | None = None) -> int:
        """Bytes that are taken: all, or those of a level, a model, a state."""
        wanted = (level, model, state)
        return sum(
            size
            for entry, size in self.entries().items()
            if all(want is None or want == has for want, has in zip(wanted, entry, strict=True))
        )

    def entries(self) -> dict[Entry, int]:
        """Bytes by line; a line that was ever used stays, with 0."""
        with self._lock:
            self._settle()
            return dict(self._entries)

    @property
    def free(self) -> int:
        """Bytes that may still be taken, before anything that is kept is given back; sys.maxsize where there is no
        budget.
        """
        with self._lock:
            self._settle()
            return self._free()

    @property
    def peak(self) -> int:
        """The most bytes that were ever taken at a time."""
        with self._lock:
            return self._peak

    def _free(self) -> int:
        if self.budget is None:
            return sys.maxsize
        return self.budget - self._total - (self._ledger.others() if self._ledger is not None else 0)

    def _resize(self, claim: Claim, size: int) -> None:
        missing = self._try_resize(claim, size)
        if missing > 0:
            for give_back in tuple(self._keepers):
                give_back(missing)
            missing = self._try_resize(claim, size)
        if missing > 0:
            more = size - claim.size
            raise OverBudget(more, free=more - missing)

    def _try_resize(self, claim: Claim, size: int) -> int:
        """Counts ``size`` bytes for the claim, or tells how many are missing."""
        with self._lock:
            self._settle()
            _check_open(claim)
            more = size - claim.size
            # Told first: of two processes that ask at once, none may get what the other gets as well.
            self._tell(claim.entry, more)
            missing = more - self._free()
            if missing > 0 < more:
                self._tell(claim.entry, -more)
                return missing
            self._entries[claim.entry] = self._entries.get(claim.entry, 0) + more
            self._total += more
            self._peak = max(self._peak, self._total)
            claim.size = size
            return 0

    def _settle(self) -> None:
        while self._returned:
            claim = self._returned.popleft()
            self._entries[claim.entry] -= claim.size
            self._total -= claim.size
            self._tell(claim.entry, -claim.size)

    def _tell(self, entry: Entry, more: int) -> None:
        if self._ledger is not None and entry.level is not Level.WEIGHTS:
            self._told += more
            self._ledger.tell(self._told)

    def _move(self, claim: Claim, entry: Entry) -> None:
        with self._lock:
            _check_open(claim)
            self._entries[claim.entry] -= claim.size
            self._entries[entry] = self._entries.get(entry, 0) + claim.size
            claim.entry = entry


def _check_open(claim: Claim) -> None:
    if claim.released:
        raise RuntimeError(f"{claim.size} bytes of {claim.entry.level} are used after they were released")
