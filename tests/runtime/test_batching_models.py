"""Real models: what is learned of them at load, and that a batch answers each request as if it were alone."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from onnx import TensorProto

from batching import models as graphs
from openclaw.errors import InvalidRequest
from openclaw.execute.session import Array, Model
from openclaw.graph.signature import Signature, TensorSpec
from openclaw.memory.pool.objects import POOLED
from openclaw.serving.batching.assembly import Buffers, gather, split
from openclaw.serving.batching.batcher import Batcher
from openclaw.serving.batching.layout import ALONE, Form, Layout, Sequences, find_mask, read_layout
from openclaw.serving.batching.measuring import LENGTHS, ModelProfile, profile_model
from openclaw.serving.batching.profile import Point, Profile, batch_sizes
from openclaw.serving.batching.room import Room
from openclaw.serving.batching.settings import BatchingSettings
from openclaw.serving.batching.verifying import agree

if TYPE_CHECKING:
    from conftest import ModelFolder

BUDGET = 0.2


@dataclass
class Watched:
    """A model that notes the shapes that it was run with."""

    model: Model
    shapes: list[tuple[int, ...]] = field(default_factory=list)

    def run(self, names: Sequence[str], arrays: Mapping[str, Array]) -> list[Array]:
        self.shapes.append(next(iter(arrays.values())).shape)
        return self.model.infer(names, arrays)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("batching")


@pytest.fixture(scope="session")
def transformer(folder: Path) -> Model:
    return Model.from_file(graphs.transformer(folder / "transformer.onnx"), threads=1)


@pytest.fixture(scope="session")
def transformer_profile(transformer: Model) -> ModelProfile:
    return learned(transformer)


@pytest.fixture
def executor() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as executor:
        yield executor


def learned(model: Model, **settings: object) -> ModelProfile:
    return profile_model(model.infer, model.signature, settings=BatchingSettings(**settings), budget=BUDGET)  # type: ignore[arg-type]


def flat(measured: ModelProfile, largest: int = 32) -> ModelProfile:
    """As if every run took the same time: whatever may share a run then does."""
    profile = Profile(tuple(Point(rows, 0.010, 5) for rows in batch_sizes(largest)))
    return replace(measured, profiles=dict.fromkeys(measured.profiles, profile))


async def ask(
    model: Model, requests: Sequence[Mapping[str, Array]], *, profile: ModelProfile, executor: ThreadPoolExecutor
) -> tuple[list[list[Array] | BaseException], Watched]:
    """All at once; answers and the runs that were made for them."""
    watched = Watched(model)
    batcher = Batcher(watched.run, profile=profile, settings=BatchingSettings(), executor=executor, hop=0.0)
    outputs = tuple(model.datatypes)
    waiting = [batcher.submit(request, outputs) for request in requests]
    answers = await asyncio.gather(*[one for one in waiting if isinstance(one, asyncio.Future)], return_exceptions=True)
    assert len(answers) == len(requests)
    return answers, watched


def assert_as_alone(
    model: Model, requests: Sequence[Mapping[str, Array]], answers: Sequence[list[Array] | BaseException]
) -> None:
    for request, answer in zip(requests, answers, strict=True):
        assert not isinstance(answer, BaseException)
        for wanted, given in zip(model.infer(tuple(model.datatypes), request), answer, strict=True):
            assert wanted.shape == given.shape
            assert wanted.dtype == given.dtype
            assert agree(wanted, given)


class TestSequences:
    """As BERT: token ids, a mask and segments, of any length."""

    def test_the_mask_is_found_and_proven_to_hide_what_is_filled_up(self, transformer_profile: ModelProfile) -> None:
        layout = transformer_profile.layout
        assert layout is not None
        assert layout.sequences == Sequences(
            "attention_mask",
            frozenset({"input_ids", "attention_mask", "token_type_ids"}),
            {"hidden": (1,), "pooled": ()},
        )
        assert "different lengths share a run" in transformer_profile.padding
        assert set(transformer_profile.profiles) == set(LENGTHS)

    async def test_different_lengths_in_one_run_are_answered_as_alone(
        self, transformer: Model, transformer_profile: ModelProfile, executor: ThreadPoolExecutor
    ) -> None:
        lengths = [9, 12, 9, 16, 10, 13]
        requests = [graphs.token_request(length, seed=seed, rows=1 + seed % 2) for seed, length in enumerate(lengths)]
        answers, watched = await ask(transformer, requests, profile=flat(transformer_profile), executor=executor)
        assert watched.shapes == [(9, 16)]
        assert_as_alone(transformer, requests, answers)

    async def test_as_it_is_measured_it_answers_a_mixed_load_as_alone(
        self, transformer: Model, transformer_profile: ModelProfile, executor: ThreadPoolExecutor
    ) -> None:
        random = np.random.default_rng(4)
        requests = [graphs.token_request(int(random.integers(1, 130)), seed=seed) for seed in range(60)]
        answers, _ = await ask(transformer, requests, profile=transformer_profile, executor=executor)
        assert_as_alone(transformer, requests, answers)

    async def test_inputs_of_unequal_length_are_the_models_to_refuse(
        self, transformer: Model, transformer_profile: ModelProfile, executor: ThreadPoolExecutor
    ) -> None:
        good, bad = graphs.token_request(9, seed=1), graphs.token_request(9, seed=2)
        bad["token_type_ids"] = bad["token_type_ids"][:, :4]
        answers, _ = await ask(transformer, [good, bad, good], profile=flat(transformer_profile), executor=executor)
        assert not isinstance(answers[0], BaseException)
        assert isinstance(answers[1], InvalidRequest)
        assert_as_alone(transformer, [good, good], [answers[0], answers[2]])

    async def test_a_token_that_does_not_exist_fails_its_request_alone(
        self, transformer: Model, transformer_profile: ModelProfile, executor: ThreadPoolExecutor
    ) -> None:
        requests = [graphs.token_request(9, seed=seed) for seed in range(4)]
        requests[2]["input_ids"][0, 3] = graphs.VOCABULARY + 5
        answers, watched = await ask(transformer, requests, profile=flat(transformer_profile), executor=executor)
        assert watched.shapes == [(4, 9), (1, 9), (1, 9), (1, 9), (1, 9)]
        assert isinstance(answers.pop(2), InvalidRequest)
        assert_as_alone(transformer, [requests[0], requests[1], requests[3]], answers)

    async def test_what_a_model_fails_on_fails_alone_of_those_that_share_a_run(
        self, transformer: Model, transformer_profile: ModelProfile, executor: ThreadPoolExecutor
    ) -> None:
        requests = [graphs.token_request(graphs.POSITIONS + 88 * (seed == 2), seed=seed) for seed in range(4)]
        for seed, request in enumerate(requests):
            request["token_type_ids"][0, 0] = 2 * (seed == 1)
        answers, watched = await ask(transformer, requests, profile=flat(transformer_profile), executor=executor)
        assert watched.shapes[0] == (4, 600)
        assert [isinstance(answer, InvalidRequest) for answer in answers] == [False, True, True, False]
        assert_as_alone(transformer, [requests[0], requests[3]], [answers[0], answers[3]])

    async def test_no_length_at_all_runs_alone(
        self, transformer: Model, transformer_profile: ModelProfile, executor: ThreadPoolExecutor
    ) -> None:
        requests = [graphs.token_request(0, seed=1), graphs.token_request(9, seed=2)]
        answers, _ = await ask(transformer, requests, profile=flat(transformer_profile), executor=executor)
        assert not isinstance(answers[1], BaseException)

    async def test_a_mask_that_the_model_ignores_is_not_trusted(
        self, folder: Path, executor: ThreadPoolExecutor
    ) -> None:
        model = Model.from_file(graphs.transformer(folder / "unmasked.onnx", masked=False), threads=1)
        measured = learned(model)
        assert measured.layout is not None
        assert measured.layout.sequences is None
        assert "'attention_mask' does not hide what is filled up: output 'hidden'" in measured.padding
        requests = [graphs.token_request(length, seed=length) for length in (9, 12, 9, 12)]
        answers, watched = await ask(model, requests, profile=flat(measured), executor=executor)
        assert_as_alone(model, requests, answers)
        assert {shape[1] for shape in watched.shapes} == {9, 12}

    async def test_padding_can_be_forbidden(self, transformer: Model, executor: ThreadPoolExecutor) -> None:
        measured = learned(transformer, padding="never")
        assert measured.padding == "only equal shapes share a run: padding is never"
        requests = [graphs.token_request(length, seed=length) for length in (9, 12, 9)]
        answers, _ = await ask(transformer, requests, profile=measured, executor=executor)
        assert_as_alone(transformer, requests, answers)


class TestIndependence:
    """Whether rows may be laid together at all is tried, not believed."""

    def test_a_model_that_mixes_its_rows_is_never_batched(self, folder: Path) -> None:
        measured = learned(Model.from_file(graphs.centered(folder / "centered.onnx")))
        assert measured.layout is None
        assert measured.reason == "batching is off: output 'y' has other values in a batch than alone"

    async def test_its_requests_run_one_by_one(self, folder: Path, executor: ThreadPoolExecutor) -> None:
        model = Model.from_file(graphs.centered(folder / "centered.onnx"))
        requests = [{"x": np.full((rows, 4), rows, np.float32)} for rows in (1, 2, 3)]
        answers, watched = await ask(model, requests, profile=learned(model), executor=executor)
        assert watched.shapes == [(1, 4), (2, 4), (3, 4)]
        assert_as_alone(model, requests, answers)

    def test_a_model_that_takes_no_single_row_is_left_alone(self, models: ModelFolder) -> None:
        measured = learned(Model.from_file(models.needs_two_rows()))
        assert measured.layout is None
        assert "batching is off" in measured.reason

    def test_a_fixed_first_dimension_is_named(self) -> None:
        fixed = TensorSpec("x", "FP32", (1, 4))
        assert read_layout(Signature((fixed,), (fixed,))) == "the first dimension of input 'x' is not free: [1, 4]"
        free = TensorSpec("x", "FP32", (-1, 4))
        scalar = TensorSpec("y", "FP32", ())
        assert read_layout(Signature((free,), (scalar,))) == "the first dimension of output 'y' is not free: []"

    def test_a_largest_batch_of_one_switches_it_off(self, models: ModelFolder) -> None:
        measured = learned(Model.from_file(models.digits()), max_batch_size=1)
        assert (measured.layout, measured.reason) == (None, "batching is off: max_batch_size is 1")
        assert measured.profile.known


async def test_sixteen_frames_are_one_run_and_each_gets_its_own_scores(
    folder: Path, executor: ThreadPoolExecutor
) -> None:
    model = Model.from_file(graphs.frames(folder / "frames.onnx"), threads=1)
    measured = learned(model, max_batch_size=16)
    random = np.random.default_rng(0)
    frames = [{"frame": random.integers(0, 256, (1, 3, 16, 16)).astype(np.uint8)} for _ in range(16)]
    answers, watched = await ask(model, frames, profile=flat(measured, 16), executor=executor)
    assert watched.shapes == [(16, 3, 16, 16)]
    assert_as_alone(model, frames, answers)


@pytest.mark.parametrize(
    ("left", "parts"), [(None, [120]), (4_800, [120]), (2_000, [50, 50, 20]), (1, [32, 32, 32, 24])]
)
async def test_a_request_of_many_rows_is_run_in_parts_that_there_is_memory_for(
    left: int | None, parts: list[int], folder: Path, executor: ThreadPoolExecutor
) -> None:
    model = Model.from_file(graphs.frames(folder / "frames.onnx"), threads=1)
    request = {"frame": np.random.default_rng(0).integers(0, 256, (120, 3, 16, 16), np.uint8)}
    profile = replace(flat(learned(model)), room=Room(lambda: left, grown=10))
    answers, watched = await ask(model, [request], profile=profile, executor=executor)
    assert [shape[0] for shape in watched.shapes] == parts
    assert_as_alone(model, [request], answers)


async def test_images_of_different_sizes_share_runs_only_with_their_like(
    folder: Path, executor: ThreadPoolExecutor
) -> None:
    model = Model.from_file(graphs.picky(folder / "picky.onnx"))
    random = np.random.default_rng(0)
    sizes = [(4, 4), (8, 4), (4, 4), (8, 4), (4, 4), (4, 8)]
    requests = [
        {"index": np.array([i]), "image": random.standard_normal((1, *size)).astype(np.float32)}
        for i, size in enumerate(sizes)
    ]
    requests[4]["index"][0] = 99
    answers, _ = await ask(model, requests, profile=flat(learned(model)), executor=executor)
    assert isinstance(answers.pop(4), InvalidRequest)
    del requests[4]
    assert_as_alone(model, requests, answers)


@pytest.mark.parametrize("datatype", [TensorProto.STRING, TensorProto.BOOL, TensorProto.FLOAT16, TensorProto.INT8])
async def test_answers_stay_as_they_are_when_the_memory_of_their_batch_is_used_again(
    models: ModelFolder, datatype: int, executor: ThreadPoolExecutor
) -> None:
    model = Model.from_file(models.identity(datatype))
    dtype = model.signature.inputs[0].dtype
    measured = flat(learned(model))
    assert measured.layout is not None
    batcher = Batcher(model.infer, profile=measured, settings=BatchingSettings(), executor=executor, hop=0.0)

    async def round_of(values: range) -> list[list[Array]]:
        requests = [
            {"x": np.array([[str(v), str(v)]] if dtype.hasobject else [[v % 2, v % 2]]).astype(dtype)} for v in values
        ]
        answers = await asyncio.gather(*[batcher.submit(request, ("y",)) for request in requests])  # type: ignore[arg-type]
        for request, answer in zip(requests, answers, strict=True):
            np.testing.assert_array_equal(answer[0], request["x"])
        return answers

    first = await round_of(range(8))
    kept = [answer[0].copy() for answer in first]
    await round_of(range(1, 9))
    for answer, copy in zip(first, kept, strict=True):
        np.testing.assert_array_equal(answer[0], copy)


class TestAssembly:
    """Rows in and out."""

    layout = Layout(("x",), fixed=False, sequences=Sequences("x", frozenset({"x"}), {"y": (1, 2)}))

    def test_memory_is_used_again(self) -> None:
        buffers = Buffers()
        parts = [{"x": np.ones((1, POOLED), np.int64)}, {"x": np.ones((2, POOLED), np.int64)}]
        first = gather(parts, self.layout, buffers=buffers)["x"]
        assert first.flags.c_contiguous
        assert first.flags.aligned
        place = first.ctypes.data
        other = gather(parts, self.layout, buffers=buffers)["x"]
        assert not np.shares_memory(first, other)
        del first
        assert gather(parts, self.layout, buffers=buffers)["x"].ctypes.data == place

    def test_memory_of_a_batch_is_not_used_again_while_anything_is_made_of_it(self) -> None:
        buffers = Buffers()
        batch = buffers.array((3, POOLED), np.dtype(np.uint8))
        batch[:] = 7
        row = batch[1]
        del batch
        buffers.array((3, POOLED), np.dtype(np.uint8))[:] = 0
        assert (row == 7).all()

    def test_what_was_in_the_memory_before_is_not_seen_beyond_a_sequence(self) -> None:
        buffers = Buffers()
        gather([{"x": np.full((2, 8), 7)}], self.layout, buffers=buffers)
        batch = gather(
            [{"x": np.ones((1, 3), np.int64)}, {"x": np.ones((1, 8), np.int64)}], self.layout, length=8, buffers=buffers
        )
        assert batch["x"].tolist() == [[1, 1, 1, 0, 0, 0, 0, 0], [1] * 8]

    def test_every_axis_along_the_sequence_is_cut(self) -> None:
        scores = np.arange(2 * 4 * 4).reshape(2, 4, 4)
        short, long = split([scores], [1, 1], lengths=[2, 4], cuts=[(1, 2)])
        assert short[0].tolist() == [[[0, 1], [4, 5]]]
        assert short[0].flags.c_contiguous
        assert long[0].shape == (1, 4, 4)

    def test_an_equal_share_is_a_view(self) -> None:
        scores = np.zeros((5, 4))
        assert all(np.shares_memory(part[0], scores) for part in split([scores], [2, 3]))

    @pytest.mark.parametrize("output", [np.zeros((4, 2)), np.zeros(())])
    def test_an_output_of_other_rows_is_an_error(self, output: Array) -> None:
        with pytest.raises(ValueError, match="5 rows went in"):
            split([output], [2, 3])


class TestLayout:
    """Which requests are alike."""

    tokens = Signature(
        tuple(TensorSpec(name, "INT64", (-1, -1)) for name in ("ids", "attention_mask")),
        (TensorSpec("y", "FP32", (-1, -1, 4)),),
    )

    def test_the_usual_masks_are_known_and_others_can_be_named(self) -> None:
        assert find_mask(self.tokens, None) == "attention_mask"
        assert find_mask(self.tokens, "ids") == "ids"
        assert find_mask(self.tokens, "absent") is None

    def test_two_free_dimensions_are_no_sequence(self) -> None:
        images = Signature((*self.tokens.inputs, TensorSpec("image", "FP32", (-1, 3, -1, -1))), self.tokens.outputs)
        assert find_mask(images, None) is None

    def test_rows_that_do_not_agree_make_a_request_run_alone(self) -> None:
        layout = read_layout(self.tokens)
        assert isinstance(layout, Layout)
        assert layout.form({"ids": np.zeros((2, 3)), "attention_mask": np.zeros((1, 3))}) == ALONE

    def test_without_a_proven_mask_lengths_are_shapes(self) -> None:
        layout = read_layout(self.tokens)
        assert isinstance(layout, Layout)
        arrays = {"ids": np.zeros((2, 3)), "attention_mask": np.zeros((2, 3))}
        assert layout.form(arrays) == Form(2, ((3,), (3,)))

    def test_the_order_in_which_a_client_names_inputs_makes_no_difference(self) -> None:
        layout = read_layout(self.tokens)
        assert isinstance(layout, Layout)
        one, other = np.zeros((2, 3)), np.zeros((2, 4))
        assert layout.form({"ids": one, "attention_mask": other}) == layout.form({"attention_mask": other, "ids": one})


def test_measuring_ends_when_its_time_is_up(transformer: Model) -> None:
    now = 0.0

    def clock() -> float:
        return now

    def run(names: Sequence[str], arrays: Mapping[str, Array]) -> list[Array]:
        nonlocal now
        now += 0.001 * arrays["input_ids"].size
        return transformer.infer(names, arrays)

    measured = profile_model(run, transformer.signature, settings=BatchingSettings(), budget=2.0, clock=clock)
    # Verifying comes before and is of a few rows alone.
    assert now < 2.0 + 0.001 * 200
    assert measured.profiles[8].latency(1) == pytest.approx(0.008)
    # Never run, and derived from as many tokens in what was.
    assert measured.profiles[512].latency(1) == pytest.approx(0.512, rel=0.01)


def test_without_any_time_a_single_row_is_measured_still(models: ModelFolder) -> None:
    model = Model.from_file(models.digits())
    measured = profile_model(model.infer, model.signature, settings=BatchingSettings(), budget=0.0)
    assert measured.profile.known
    assert measured.layout is not None
