"""Claims: of many who want the same result one works, and whatever becomes of it, the others get on."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from openclaw.optimizer.results.place import open_place
from openclaw.optimizer.step.claims import Claim, Claims, Failure, Pace

KEY = "a" * 64
QUICK = Pace(beat=0.05, stale=0.4, look=0.01, failure=600)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "shared"


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(16) as pool:
        yield pool


def claims(folder: Path, *, memory: int | None = None, pace: Pace = QUICK) -> Claims:
    return Claims(open_place(folder), KEY, memory=memory, pace=pace)


def nothing() -> None:
    return None


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob(f"claims/{KEY}/*"))


def taken(folder: Path, **more: int) -> Claim:
    claim = claims(folder, **more).contend(nothing, seconds=5)
    assert isinstance(claim, Claim)
    return claim


def test_the_first_who_comes_has_the_claim_and_takes_it_along_when_done(folder: Path) -> None:
    with taken(folder) as claim:
        assert left(folder) == ["000001"]
        claim.release()
    assert left(folder) == []


def test_of_many_who_come_at_once_one_works_and_all_get_its_result(folder: Path, threads: ThreadPoolExecutor) -> None:
    results: list[str] = []
    working = threading.Semaphore(1)
    start = threading.Barrier(8)

    def look() -> str | None:
        return results[0] if results else None

    def work(number: int) -> str:
        start.wait()
        found = claims(folder).contend(look, seconds=20)
        if not isinstance(found, Claim):
            assert isinstance(found, str)
            return found
        with found:
            assert working.acquire(blocking=False), "two work at the same time"
            threading.Event().wait(2 * QUICK.stale)  # longer than a claim without signs of life is believed
            results.append(f"by {number}")
            working.release()
            found.release()
        return results[0]

    got = list(threads.map(work, range(8)))
    assert len(results) == 1
    assert got == results * 8
    assert left(folder) == []


def test_the_claim_of_one_who_died_is_taken_over_by_one_alone(folder: Path, threads: ThreadPoolExecutor) -> None:
    taken(folder)  # its thread never runs: no sign of life
    found = [threads.submit(claims(folder).contend, nothing, seconds=1.2) for _ in range(4)]
    outcomes = [_outcome(each) for each in found]
    # The one who took over gives no sign of life either, and is followed in turn, if there is time.
    numbers = sorted(each.number for each in outcomes if isinstance(each, Claim))
    assert numbers == list(range(2, 2 + len(numbers)))
    assert numbers


def _outcome(future: "Future[Claim | Failure | None]") -> object:
    try:
        return future.result(10)
    except TimeoutError as error:
        return error


def test_who_waits_longer_than_there_is_time_is_told(folder: Path) -> None:
    with taken(folder), pytest.raises(TimeoutError, match="somebody else was still at it after 1 s"):
        claims(folder).contend(nothing, seconds=1.0)


def test_a_failure_is_told_to_those_who_wait_and_to_those_who_come_soon_after(
    folder: Path, threads: ThreadPoolExecutor
) -> None:
    with taken(folder) as claim:
        waiting = threads.submit(claims(folder).contend, nothing, seconds=10)
        claim.fail("it fell over")
    assert waiting.result(10) == Failure("it fell over")
    assert claims(folder).contend(nothing, seconds=0) == Failure("it fell over")


@pytest.mark.parametrize(
    ("theirs", "mine", "tries"),
    [
        (100, 100, False),
        (100, 99, False),
        (100, 101, True),
        (100, None, True),
        (None, None, False),
        (None, 5, False),
    ],
)
def test_who_has_more_memory_tries_again(folder: Path, theirs: int | None, mine: int | None, *, tries: bool) -> None:
    first = claims(folder, memory=theirs).contend(nothing, seconds=1)
    assert isinstance(first, Claim)
    with first:
        first.fail("it needed more memory")
    found = claims(folder, memory=mine).contend(nothing, seconds=0)
    assert isinstance(found, Claim if tries else Failure)


def test_an_old_failure_is_tried_again(folder: Path) -> None:
    with taken(folder) as claim:
        claim.fail("it fell over")
    again = claims(folder, pace=Pace(failure=-1)).contend(nothing, seconds=0)
    assert isinstance(again, Claim)
    assert again.number == 2
    again.release()
    assert left(folder) == [], "those before go with it"


def test_a_result_that_came_before_the_claim_was_released_is_taken(folder: Path) -> None:
    assert claims(folder).contend(lambda: "there already", seconds=0) == "there already"
    assert left(folder) == []


def test_what_is_no_claim_of_ours_grows_stale_like_one(folder: Path) -> None:
    place = folder / "claims" / KEY
    place.mkdir(parents=True)
    (place / "000001").write_bytes(b"\x00 not JSON")
    (place / "notes.txt").write_text("somebody's")
    found = claims(folder).contend(nothing, seconds=5)
    assert isinstance(found, Claim)
    assert found.number == 2


def test_no_sign_of_life_follows_the_last_word(folder: Path) -> None:
    with taken(folder) as claim:
        path = folder / "claims" / KEY / "000001"
        _changes(path)
        claim.fail("it fell over")
        said = path.read_bytes()
        threading.Event().wait(4 * QUICK.beat)
        assert path.read_bytes() == said
    assert path.read_bytes() == said


def _changes(path: Path) -> None:
    """Waits for a sign of life."""
    before = path.read_bytes()
    _until(lambda: path.read_bytes() != before)


def _until(holds: Callable[[], bool], seconds: float = 10) -> None:
    tick = threading.Event()
    for _ in range(int(seconds / 0.01)):
        if holds():
            return
        tick.wait(0.01)
    pytest.fail("not in time")


def test_a_failure_that_cannot_be_told_is_only_logged(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    claim = taken(folder)
    for path in (folder / "claims" / KEY / "000001", folder / "claims" / KEY):
        path.unlink() if path.is_file() else path.rmdir()
    (folder / "claims" / KEY).write_text("a file where a folder was")
    claim.fail("it fell over")
    assert "cannot be told" in caplog.text
