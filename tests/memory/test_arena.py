"""Settings of onnxruntime's arena: each session has its own, answers stay the same, and less is held."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from openclaw.execute.session import Model
from openclaw.memory.arena import Arena, Growth, Shrink, ShrinkingRuns, arena_of
from openclaw.memory.choice import Way, candidates, fitted, ranked, region, ways
from openclaw.memory.profile import ArenaUse, arena_use
from openclaw.memory.properties import Memory

SIDE = 64
ONE = SIDE * SIDE * 16 * 4  # bytes of a tensor in the middle


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Convolutions one after the other, each of which makes a megabyte at a batch of four."""
    random = np.random.default_rng(0)
    nodes, weights, name = [], [], "x"
    for number in range(6):
        shape = (16, 3 if number == 0 else 16, 3, 3)
        weights.append(numpy_helper.from_array(random.standard_normal(shape).astype(np.float32) * 0.1, f"w{number}"))
        nodes.append(helper.make_node("Conv", [name, f"w{number}"], [f"c{number}"], pads=[1] * 4))
        name = f"c{number}"
    nodes.append(helper.make_node("ReduceMean", [name], ["y"], axes=[2, 3]))
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, SIDE, SIDE])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 16, 1, 1])
    graph = helper.make_graph(nodes, "chain", [x], [y], weights)
    path = tmp_path_factory.mktemp("arena") / "chain.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def feed(batch: int = 4) -> dict[str, np.ndarray[Any, Any]]:
    return {"x": np.random.default_rng(1).standard_normal((batch, 3, SIDE, SIDE)).astype(np.float32)}


def session(path: Path, arena: Arena | None, *, profile: str) -> Any:
    onnxruntime.disable_telemetry_events()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.enable_profiling = True
    options.profile_file_prefix = profile
    with arena_of(options, arena):
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def use(path: Path, arena: Arena | None, folder: Path, *, batches: tuple[int, ...] = (4, 4, 4)) -> ArenaUse:
    """What the arena held over runs of these batches."""
    made = session(path, arena, profile=str(folder / "profile"))
    run = ShrinkingRuns(made, arena).run if arena else made.run
    for batch in batches:
        run(None, feed(batch))
    return arena_use(json.loads(Path(made.end_profiling()).read_text()))


def test_an_arena_that_grows_by_what_is_asked_for_holds_less(path: Path, tmp_path: Path) -> None:
    default, ours = use(path, None, tmp_path), use(path, Arena(), tmp_path)
    # Two tensors live at once; the rest is what kernels work in.
    assert 8 * ONE <= ours.most_held < default.most_held
    assert ours.most_in_use <= ours.most_held


def test_settings_are_those_of_one_session(path: Path, tmp_path: Path) -> None:
    large = Arena(Growth.NEXT_POWER_OF_TWO, initial_bytes=64 << 20)
    first = use(path, large, tmp_path)
    second = use(path, Arena(), tmp_path)
    third = use(path, large, tmp_path)
    assert first.most_held >= 64 << 20
    assert second.most_held < 32 << 20
    assert third.most_held == first.most_held


def test_sessions_made_at_the_same_time_get_their_own_settings(path: Path, tmp_path: Path) -> None:
    sizes = [8 << 20, 16 << 20, 32 << 20, 64 << 20] * 3

    def held(number: int) -> int:
        folder = tmp_path / str(number)
        folder.mkdir()
        return use(path, Arena(Growth.NEXT_POWER_OF_TWO, initial_bytes=sizes[number]), folder).most_held

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(held, range(len(sizes))))
    assert found[4:8] == found[:4] == found[8:]
    assert len(set(found)) == 4


@pytest.mark.parametrize(
    "arena",
    [
        None,
        Arena(),
        Arena(shrink=Shrink.ALWAYS),
        Arena(pattern=True),
        Arena(pattern=True, shrink=Shrink.NEW_SHAPES),
        Arena(dead_bytes=256),
        Arena(Growth.NEXT_POWER_OF_TWO, initial_bytes=4 << 20, largest_bytes=1 << 20),
    ],
    ids=["default", "same", "shrinking", "pattern", "pattern, shrinking", "exact", "planned"],
)
def test_a_model_answers_the_same_whatever_its_arena(path: Path, arena: Arena | None) -> None:
    expected = Model.from_file(path, threads=1).run(feed())["y"]
    model = Model.from_file(path, threads=1, memory=Memory(arena))
    for _ in range(3):
        np.testing.assert_array_equal(model.run(feed())["y"], expected)


def test_an_arena_that_shrinks_gives_back_what_a_large_batch_took(path: Path, tmp_path: Path) -> None:
    batches = (16, 1, 1)
    kept, shrunk = (
        use(path, Arena(), tmp_path, batches=batches),
        use(path, Arena(shrink=Shrink.ALWAYS), tmp_path, batches=batches),
    )
    assert kept.held == kept.most_held
    # What an output lies in stays, so not all of it goes.
    assert shrunk.held <= kept.held / 2


def test_a_first_region_of_more_than_two_gigabytes_is_cut_to_what_onnxruntime_can_count() -> None:
    assert Arena(initial_bytes=3 << 30).settings()["initial_chunk_size_bytes"] == (1 << 31) - 1


def test_a_profile_without_figures_is_told() -> None:
    with pytest.raises(ValueError, match="no figures of an arena"):
        arena_use([{"cat": "Session", "name": "model_run", "dur": 1}])


def test_weights_in_the_arena_do_not_count_and_what_lies_free_beside_them_does() -> None:
    def event(held: int, *, used: int, more: int) -> dict[str, Any]:
        figures = {"mem_arena_held": held, "mem_bytes_in_use": used, "mem_in_use_delta": more}
        return {"cat": "Node", "args": {name: str(value) for name, value in figures.items()}}

    events = [
        {"cat": "Session"},
        event(128, used=110, more=10),
        event(180, used=160, more=50),
        {"cat": "Session", "name": "model_run"},
        event(160, used=100, more=-60),
    ]
    assert arena_use(events) == ArenaUse(weights=100, most_held=80, held=60, most_in_use=60)


def test_a_pattern_holds_less_if_its_first_run_gives_back_what_it_took(path: Path, tmp_path: Path) -> None:
    kept = use(path, Arena(pattern=True), tmp_path)
    shrunk = use(path, Arena(pattern=True, shrink=Shrink.NEW_SHAPES), tmp_path)
    assert shrunk.held < kept.held
    assert kept.held == kept.most_held


def test_a_run_gives_back_only_when_its_shapes_are_new(path: Path, tmp_path: Path) -> None:
    arena = Arena(shrink=Shrink.NEW_SHAPES)
    assert use(path, arena, tmp_path, batches=(16, 16, 1)).held >= 32 * ONE
    assert use(path, arena, tmp_path, batches=(16, 16, 1, 1)).held <= 16 * ONE


@pytest.mark.parametrize("field", ["initial_bytes", "largest_bytes", "dead_bytes"])
def test_sizes_that_onnxruntime_would_crash_with_are_refused(field: str) -> None:
    with pytest.raises(ValueError, match=f"{field} of an arena is 0; it must be at least 1"):
        Arena(**{field: 0})


def test_ways_are_ranked_by_what_they_hold_and_never_hold_more_than_the_default() -> None:
    same, pattern, planned = ways(None, 1000)
    more, equal = (Way(name, Memory(Arena())) for name in ("more", "equal"))
    held = {same: [5, 40], pattern: [6, 40], planned: [9, 30], more: [11, 20], equal: [10, 100]}
    assert ranked(held, [10, 100]) == [planned, same, pattern]
    assert ranked({}, [10]) == []


def test_a_first_region_may_be_larger_than_small_batches_need_for_what_they_do_not_touch_takes_no_memory() -> None:
    assert ranked({fitted(None, 4096): [50, 50]}, [10, 100]) == [fitted(None, 4096)]
    assert ranked({fitted(None, 4096): [5, 100]}, [10, 100]) == []


def resident() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmRSS:"))) * 1024


def test_a_region_that_no_run_has_touched_takes_no_memory(path: Path, tmp_path: Path) -> None:
    size = 1 << 30
    before = resident()
    opened = session(path, region(size), profile=str(tmp_path / "profile"))
    for _ in range(3):
        opened.run(None, feed(1))
    taken = resident() - before
    assert arena_use(json.loads(Path(opened.end_profiling()).read_text())).held >= size - ONE
    assert taken < size / 4


def test_ways_have_names_of_arena_and_rows_and_the_default_is_none_of_them() -> None:
    assert [way.name for way in ways(None, None)] == ["same as requested", "pattern"]
    named = {way.name: way.memory for way in ways(4, 1000)}
    assert named["default, 4 rows at a time"] == Memory(None, 4)
    assert named["planned, 4 rows at a time"] == Memory(region(1000), 4)
    assert "default, 1 row at a time" in {way.name for way in ways(1, None)}
    assert fitted(8, 4096) == Way("fitted, 8 rows at a time", Memory(region(4096), 8))


def test_without_a_plan_only_arenas_that_need_none_come_into_question() -> None:
    assert [each and each.initial_bytes for each in candidates().values()] == [None, None, None]
    assert candidates(1000)["planned"] == Arena(
        Growth.NEXT_POWER_OF_TWO, initial_bytes=1000, largest_bytes=1 << 20, dead_bytes=256
    )
