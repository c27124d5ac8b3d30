"""The step before serving, as containers run it: one of many optimizes, and nothing that goes wrong stops a service."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import numpy as np
import onnx
import psutil
import pytest
from onnx import helper

from openclaw.errors import EX_CONFIG
from openclaw.optimizer.results.place import FAILURES, is_there, open_place
from openclaw.optimizer.step.claims import Claim, Claims, Failure, Pace
from optimizer import models as small

DIES = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
HANGS = "import threading; threading.Event().wait(120)"
MISSING = "raise ModuleNotFoundError('it is not there', name={0!r})"
QUICK = Pace(beat=0.1, stale=1.0, look=0.05)


def chain(layers: int = 8, width: int = 256) -> onnx.ModelProto:
    """Products one after the other with nothing between: one product does the same, and onnxruntime does not see it."""
    nodes = [helper.make_node("MatMul", [f"x{i}" if i else "x", f"w{i}"], [f"x{i + 1}"]) for i in range(layers)]
    weights = [small.weight(f"w{i}", width, width, seed=i, scale=width**-0.5) for i in range(layers)]
    return small.made(nodes, [small.tensor("x", "N", width)], [small.tensor(f"x{layers}", "N", width)], weights=weights)


@dataclass
class Pod:
    """What one pod has: a configuration, a cache, a folder for the form, and a termination log."""

    folder: Path
    config: dict[str, Any]
    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.folder.mkdir()
        (self.folder / "server.json").write_text(json.dumps(self.config))

    @property
    def prepared(self) -> Path:
        return self.folder / "prepared"

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        own = {
            "OPENCLAW_CACHE_DIR": str(self.folder / "cache"),
            "OPENCLAW_TERMINATION_LOG": str(self.folder / "termination.log"),
            "OPENCLAW_PREPARED": str(self.prepared),
        }
        return subprocess.Popen(
            [sys.executable, "-m", "openclaw", "prepare", f"--config={self.folder / 'server.json'}", *arguments],
            env={**os.environ, **self.environment, **own, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *arguments: str, **environment: str) -> int:
        process = self.start(*arguments, **environment)
        said, _ = process.communicate(timeout=100)
        print(said)
        return process.returncode

    def told(self) -> dict[str, Any]:
        """Its last words."""
        words: dict[str, Any] = json.loads((self.folder / "termination.log").read_text())
        return words.get("optimization", words)

    def form(self) -> bytes | None:
        forms = list(self.prepared.glob("*.onnx"))
        assert len(forms) <= 1
        return forms[0].read_bytes() if forms else None


@pytest.fixture
def pods(s3: Any, tmp_path: Path) -> Any:
    """Makes pods whose model lies in the store."""
    uri = s3.put(f"{tmp_path.name}/chain.onnx", chain().SerializeToString())
    numbers = iter(range(100))

    def make(**model: Any) -> Pod:
        config = {"model": {"name": "chain", "uri": uri, **model}, "server": {"threads": 1}}
        return Pod(tmp_path / f"pod-{next(numbers)}", config, s3.environment())

    return make


@pytest.fixture
def cache(tmp_path: Path) -> str:
    return f"s3://models/{tmp_path.name}/optimized"


def stub(folder: Path, package: str, code: str) -> dict[str, str]:
    """An environment in which importing a package does this instead."""
    folder.mkdir(exist_ok=True)
    (folder / f"{package}.py").write_text(code + "\n")
    return {"PYTHONPATH": str(folder)}


def shared(s3: Any, cache: str) -> dict[str, list[str]]:
    """What lies in the cache: results, and claims to them."""
    place = s3.folder / cache.removeprefix("s3://")
    results = sorted(path.name for path in place.glob("*") if path.is_file())
    return {"results": results, "claims": sorted(path.name for path in place.glob("claims/*/*"))}


def answers(server: Any) -> list[float]:
    data = {"name": "x", "shape": [1, 256], "datatype": "FP32", "data": [1.0] * 256}
    request = Request(f"{server.url}/v2/models/chain/infer", json.dumps({"inputs": [data]}).encode())
    with urlopen(request, timeout=10) as answer:
        numbers: list[float] = json.loads(answer.read())["outputs"][0]["data"]
        return numbers


def test_of_pods_that_start_at_once_one_optimizes_and_all_serve_the_same_form(
    s3: Any, pods: Any, cache: str, start_server: Any
) -> None:
    several = [pods() for _ in range(2)]
    with ThreadPoolExecutor(2) as threads:
        codes = list(threads.map(lambda pod: pod.run(f"--cache={cache}"), several))
    assert codes == [0, 0]
    told = [pod.told() for pod in several]
    assert sorted(each.pop("cached") for each in told) == [False, True]
    assert told[0] == told[1]
    assert (told[0]["outcome"], told[0]["mode"], told[0]["precision"]) == ("Optimized", "fp32", "fp32")
    assert told[0]["nodesBefore"] == 8
    assert told[0]["nodesAfter"] < 8
    assert told[0]["latencyPercent"] <= 101
    form = several[0].form()
    assert form is not None
    assert form == several[1].form()
    found = shared(s3, cache)
    assert (len(found["results"]), found["claims"]) == (1, [])

    late = pods(uri=several[0].config["model"]["uri"])
    began = time.monotonic()
    assert late.run(f"--cache={cache}") == 0
    assert late.told()["cached"] is True
    assert late.form() == form
    print(f"a cached result took {time.monotonic() - began:.1f} s")

    # The server has the same cache of downloads as the step, and is called as the user calls the model.
    first = several[0]
    environment = {**s3.environment(), "OPENCLAW_PREPARED": str(first.prepared)}
    served = start_server("--config", first.folder / "server.json", "--drain-delay", 0, **environment).wait_ready()
    plain = start_server("--config", first.folder / "server.json", "--drain-delay", 0, **s3.environment()).wait_ready()
    assert "chain is served in its optimized form" in served.log
    assert "optimized" not in plain.log
    assert answers(served) == pytest.approx(answers(plain), rel=1e-3, abs=1e-4)


def test_nothing_faster_is_a_result_that_others_find_too(s3: Any, pods: Any, cache: str) -> None:
    uri = s3.put(f"{cache.split('/')[3]}/relu.onnx", small.any_rank().SerializeToString())
    first, second = pods(uri=uri), pods(uri=uri)
    assert [pod.run(f"--cache={cache}") for pod in (first, second)] == [0, 0]
    assert [pod.told()["outcome"] for pod in (first, second)] == ["NothingFaster"] * 2
    assert [pod.told()["cached"] for pod in (first, second)] == [False, True]
    assert "any number of dimensions" in first.told()["reason"]
    assert first.form() is None


def test_an_optimizer_that_is_killed_costs_its_gain_alone_and_is_not_tried_by_every_pod(
    s3: Any, pods: Any, cache: str, tmp_path: Path
) -> None:
    first, second = pods(), pods()
    assert first.run(f"--cache={cache}", **stub(tmp_path / "stubs", "onnx_ir", DIES)) == 0
    assert first.told()["outcome"] == "Failed"
    assert "was killed, most likely for its memory: raise resources.limits.memory" in first.told()["reason"]
    assert first.form() is None
    assert not (first.prepared / "work").exists()
    assert shared(s3, cache) == {"results": [], "claims": ["000001"]}
    assert second.run(f"--cache={cache}") == 0
    assert second.told()["reason"] == first.told()["reason"]


def test_a_container_that_was_killed_with_it_does_not_try_again_and_tells_those_who_wait(
    pods: Any, cache: str, tmp_path: Path
) -> None:
    pod, other = pods(), pods()
    process = pod.start(f"--cache={cache}", **stub(tmp_path / "stubs", "onnx_ir", HANGS))
    _claims(pod)
    for member in (*psutil.Process(process.pid).children(recursive=True), process):
        member.kill()
    process.communicate(timeout=20)

    assert pod.run(f"--cache={cache}") == 0
    assert pod.told()["outcome"] == "Failed"
    assert "the container ended while it optimized" in pod.told()["reason"]
    assert pod.form() is None
    began = time.monotonic()
    assert other.run(f"--cache={cache}") == 0
    assert other.told()["reason"] == pod.told()["reason"]
    assert time.monotonic() - began < Pace().stale, "it did not have to find out by itself"


def test_what_takes_too_long_is_given_up(pods: Any, cache: str, tmp_path: Path) -> None:
    pod = pods()
    began = time.monotonic()
    assert pod.run(f"--cache={cache}", "--timeout=5", **stub(tmp_path / "stubs", "onnx_ir", HANGS)) == 0
    assert time.monotonic() - began < 40
    assert "longer than the 5 s of spec.runtime.optimize.timeoutSeconds" in pod.told()["reason"]
    assert pod.form() is None


def _claims(pod: Pod, seconds: float = 40) -> None:
    """Waits until a pod has the claim."""
    tick, ends = threading.Event(), time.monotonic() + seconds
    while not (pod.prepared / "work" / "claim.json").exists():
        assert time.monotonic() < ends, "it never claimed"
        tick.wait(0.05)


def test_a_pod_that_is_stopped_lets_another_one_try_at_once(s3: Any, pods: Any, cache: str, tmp_path: Path) -> None:
    pod = pods()
    process = pod.start(f"--cache={cache}", **stub(tmp_path / "stubs", "onnx_ir", HANGS))
    _claims(pod)
    assert shared(s3, cache)["claims"] == ["000001"]
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=20)
    assert process.returncode == 128 + signal.SIGTERM, said
    assert shared(s3, cache)["claims"] == []
    assert pod.run(f"--cache={cache}") == 0
    assert pod.told()["outcome"] == "Optimized"


def test_without_the_extra_the_model_is_served_as_it_is(pods: Any, cache: str, tmp_path: Path) -> None:
    pod = pods()
    assert pod.run(f"--cache={cache}", **stub(tmp_path / "stubs", "onnx", MISSING.format("onnx"))) == 0
    assert pod.told()["outcome"] == "Failed"
    assert pod.told()["reason"] == "optimizing needs onnx, which is not installed: pip install 'openclaw[optimize]'"
    assert pod.told()["nodeType"].endswith("1 thread")


CALIBRATION = ("--precision=auto", "--calibration=s3://models/absent.npz")
LACKING = {
    "calibration that is not there": (CALIBRATION, "calibration: there is no object s3://models/absent.npz"),
    "a cache that is not there": (("--cache=s3://nowhere/optimized",), "the cache s3://nowhere/optimized cannot"),
    "a cache that cannot be written": (("--cache=https://host/optimized",), "https:// cannot be written to"),
}


@pytest.mark.parametrize(("arguments", "reason"), LACKING.values(), ids=LACKING.keys())
def test_what_cannot_be_had_for_optimizing_costs_only_the_gain(
    pods: Any, cache: str, *, arguments: tuple[str, ...], reason: str
) -> None:
    pod = pods()
    assert pod.run(f"--cache={cache}", *arguments) == 0
    assert pod.told()["outcome"] == "Failed"
    assert reason in pod.told()["reason"]


def test_calibration_data_that_does_not_fit_is_named(s3: Any, pods: Any, cache: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "samples.npz", image=np.zeros((4, 256), np.float32))
    uri = s3.put(f"{tmp_path.name}/samples.npz", (tmp_path / "samples.npz").read_bytes())
    pod = pods()
    assert pod.run(f"--cache={cache}", "--precision=auto", f"--calibration={uri}") == 0
    assert "calibration: the model has no input 'image'" in pod.told()["reason"]


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        ({"uri": "s3://models/absent.onnx"}, "ModelNotFound"),
        ({"sha256": "0" * 64}, "ModelDigestMismatch"),
        ({"maxBytes": 10}, "ModelTooLarge"),
        ({"unknown": 1}, "ConfigInvalid"),
    ],
)
def test_what_would_stop_the_server_stops_the_step_with_the_same_words(
    pods: Any, cache: str, *, model: dict[str, Any], reason: str
) -> None:
    pod = pods(**model)
    assert pod.run(f"--cache={cache}") == EX_CONFIG
    assert pod.told()["reason"] == reason


def test_a_model_that_is_none_is_left_for_the_server_to_refuse(s3: Any, pods: Any, cache: str, tmp_path: Path) -> None:
    pod = pods(uri=s3.put(f"{tmp_path.name}/text.onnx", b"This is a letter."))
    assert pod.run(f"--cache={cache}") == 0
    assert "is not an ONNX model" in pod.told()["reason"]


class TestClaimsInTheStore:
    """The store lets one succeed of those who create the same claim."""

    @pytest.fixture(autouse=True)
    def account(self, s3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        for name, value in s3.environment().items():
            monkeypatch.setenv(name, value)

    def claims(self, cache: str) -> Claims:
        return Claims(open_place(cache), "f" * 64, pace=QUICK)

    def test_one_of_many_has_the_claim(self, s3: Any, cache: str) -> None:
        results: list[str] = []

        def work(number: int) -> str:
            found = self.claims(cache).contend(lambda: next(iter(results), None), seconds=60)
            if isinstance(found, Claim):
                with found:
                    threading.Event().wait(2 * QUICK.stale)
                    results.append(f"by {number}")
                    found.release()
                return results[0]
            assert isinstance(found, str)
            return found

        with ThreadPoolExecutor(8) as threads:
            got = list(threads.map(work, range(8)))
        assert got == results * 8
        assert shared(s3, cache)["claims"] == []

    def test_a_store_that_hangs_is_not_waited_for(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            # The kernel takes connections and requests; nobody ever reads them.
            monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
            began = time.monotonic()
            with pytest.raises(FAILURES):
                is_there(open_place("s3://models/optimized", timeout=0.3), "x")
            assert time.monotonic() - began < 15

    def test_a_claim_without_a_sign_of_life_is_taken_over(self, s3: Any, cache: str) -> None:
        dead = self.claims(cache).contend(lambda: None, seconds=5)
        assert isinstance(dead, Claim)
        found = self.claims(cache).contend(lambda: None, seconds=30)
        assert isinstance(found, Claim)
        assert found.number == 2
        found.fail("it fell over")
        assert self.claims(cache).contend(lambda: None, seconds=0) == Failure("it fell over")


def test_lower_precision_is_kept_within_the_budget_and_told_with_what_it_reached(
    s3: Any, pods: Any, cache: str, tmp_path: Path
) -> None:
    model = small.mlp(width=1024)
    samples = np.random.default_rng(3).standard_normal((200, 16)).astype(np.float32)
    np.savez(tmp_path / "samples.npz", x=samples)
    data = s3.put(f"{tmp_path.name}/samples.npz", (tmp_path / "samples.npz").read_bytes())
    pod = pods(uri=s3.put(f"{tmp_path.name}/mlp.onnx", model.SerializeToString()))
    budget = "top1>=0.9,cosine>=0.98"
    asked = ("--precision=auto", f"--calibration={data}", f"--accuracy-budget={budget}", f"--cache={cache}")
    assert pod.run(*asked) == 0
    told = pod.told()
    print(told)
    assert (told["outcome"], told["mode"]) == ("Optimized", "auto")
    assert told["precision"] != "fp32"
    assert told["latencyPercent"] < 90
    assert told["sizePercent"] < 60 or told["precision"] == "bf16", "bfloat16 is made of 32-bit weights as they run"
    reached = dict(each.split() for each in told["accuracy"].split(", "))
    assert float(reached["top1"]) >= 0.9
    assert float(reached["cosine"]) >= 0.98
    assert pod.form() is not None
