"""One session: all subjects by turns, point after point, so that whatever else the machine does hits all of them.

The servers of a model are up together, and all but the one that is measured are paused: whoever is compared is
measured within seconds of the other, and not within the minutes in which a shared machine changes its speed.
"""

from __future__ import annotations

import functools
import json
import random
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from http.client import HTTPException
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.serving import figures, wire
from benchmarks.serving.load import LoadError, closed_loop
from benchmarks.serving.models import BERT, MLP, RESNET50, Arrays, ServedModel, padded
from benchmarks.serving.openloop import OpenLoop
from benchmarks.serving.peers import engine
from benchmarks.serving.samples import LOOP, Load, Sample
from benchmarks.serving.server import Server, ServerError, differences, running
from benchmarks.serving.subjects import OBJECTIVE, Served, Subject, cores
from benchmarks.serving.verdicts import CONNECTIONS

_SENTENCES = 64
_AT_ONCE = 6  # requests of the check
_CALIBRATION = 2.0  # seconds
_TIMES = {RESNET50.name: 10.0, BERT.name: 4.0}
"""How much longer a load lasts."""
_LEAD = {RESNET50.name: 2.0, BERT.name: 2.0}
"""Seconds of a closed loop that are not counted. With sixteen connections it takes one or two until the first of them
is answered for the second time; what is under way at the end would be missing without."""
_TRIES, _AGAIN = 20, 0.5  # seconds between them


@dataclass(frozen=True, slots=True)
class Plan:
    """What is measured.

    Attributes:
        seconds: of each load on the tiny model; the others last longer.
        connections: of the closed loops.
        shares: of its own top rate, at which each subject's latency is measured.
        offered: rates of sentences, through the bare onnxruntime loop's.
        rounds: times that every server is started anew.
        turns: times that each is measured at each point, between its start and its end.
    """

    models: tuple[ServedModel, ...]
    rounds: int = 5
    turns: int = 1
    seconds: float = 4.0
    connections: tuple[int, ...] = (1, CONNECTIONS, 64)
    shares: tuple[float, ...] = (0.2, 0.5, 0.8, 0.95)
    offered: tuple[float, ...] = (0.6, 0.9, 1.3)


@dataclass(frozen=True, slots=True)
class Point:
    """What is asked of a server at one time: `level` is of connections (closed), or the offered rate."""

    load: Load
    encoding: str
    level: float


@dataclass(slots=True)
class Session:
    """What is known before the rounds begin.

    Attributes:
        say: tells the terminal what happens.
        tops: of each subject that serves the tiny model: its rate with JSON and 16 connections, in a short run.
        half: half of the best peer's; None without peers.
        capacity: sentences a second in the bare onnxruntime loop.
        left_out: why something is not measured.
    """

    plan: Plan
    subjects: Sequence[Subject]
    say: Callable[[str], None]
    samples: list[Sample] = field(default_factory=list)
    served: list[Served] = field(default_factory=list)
    tops: dict[str, float] = field(default_factory=dict)
    half: float | None = None
    capacity: float = 0.0
    left_out: list[str] = field(default_factory=list)

    def run(self) -> None:
        """Checks all, then measures all, by turns."""
        self._check()
        for number in range(self.plan.rounds):
            for model in self.plan.models:
                with ExitStack() as stack:
                    servers = self._started(model, number, stack=stack)
                    for turn in range(number * self.plan.turns, (number + 1) * self.plan.turns):
                        self._turn(model, turn, servers=servers)

    def _started(self, model: ServedModel, number: int, *, stack: ExitStack) -> dict[Served, Server]:
        """Every server of a model, up and paused."""
        servers = {}
        for served in self.served:
            if served.model is model:
                self.say(f"round {number + 1} of {self.plan.rounds}: {model.name}: starting {served.name} ...")
                with self._others_go_on(served, number):
                    servers[served] = stack.enter_context(running(served, _request(served, binary=False)))
                    servers[served].pause()
        return servers

    def _turn(self, model: ServedModel, turn: int, *, servers: dict[Served, Server]) -> None:
        """Every server at every point, once."""
        points = {served: list(self._points(served, whole=turn == 0)) for served in servers}
        for point in dict.fromkeys(point for own in points.values() for point in own):
            self.say(f"turn {turn + 1} of {self.plan.rounds * self.plan.turns}: {model.name}: {_text(point)}")
            if (point.load, point.level) == ("closed", CONNECTIONS):
                self._loop(model, turn, encoding=point.encoding)
            takers = [served for served in servers if point in points[served]]
            # Whoever is first would otherwise always be next to the loop.
            shift = turn % len(takers)
            for served in takers[shift:] + takers[:shift]:
                with self._others_go_on(served, turn), servers[served].awake():
                    self._measure(served, servers[served], turn=turn, point=point)

    @contextmanager
    def _others_go_on(self, served: Served, number: int) -> Iterator[None]:
        """Hours of the others' figures are not lost because one server fails."""
        try:
            yield
        except (ServerError, LoadError) as error:
            self.left_out.append(f"{served.name}, {served.model.name}, {number + 1}: {error}")
            self.say(f"  {self.left_out[-1]}")

    def _check(self) -> None:
        """Starts each once; one that does not start or answers wrongly is left out, and the reason kept."""
        for model in self.plan.models:
            expected = _expected(model, _AT_ONCE)
            for subject in self.subjects:
                for variant in subject.variants_for(model):
                    self._check_one(Served(subject, model, variant), expected)
        peers = [self.tops[each.name] for each in self.served if each.name in self.tops and each.subject.kind == "peer"]
        self.half = round(max(peers) / 2) if peers else None
        if BERT in self.plan.models:
            self.capacity = _engine_rate(BERT, _CALIBRATION * 3)
            self.say(f"check: {LOOP}: {self.capacity:.1f} sentences/s")

    def _check_one(self, served: Served, expected: Sequence[Arrays]) -> None:
        try:
            with running(served, _request(served, binary=False), expected=expected[0]) as server:
                told = f"answers rightly after {server.ready:.1f} s"
                _check_at_once(served, server, expected)
                if served.model is MLP:
                    request = _request(served, binary=False)
                    done = closed_loop(server.port, request, connections=CONNECTIONS, seconds=_CALIBRATION)
                    self.tops[served.name] = done.rate
                    told += f", about {done.rate:.0f} requests/s"
        except (ServerError, LoadError, OSError, HTTPException, wire.StatusError) as error:
            self.left_out.append(f"{served.name}, {served.model.name}: {error}")
            self.say(f"check: {served.model.name}: {served.name} is left out: {error}")
        else:
            self.served.append(served)
            self.say(f"check: {served.model.name}: {served.name} {told}")

    def _loop(self, model: ServedModel, turn: int, *, encoding: str) -> None:
        rate = _engine_rate(model, self._seconds(model))
        self.say(f"  {LOOP}: {rate:.1f}/s")
        self.samples.append(
            Sample(turn, LOOP, "bare", model.name, encoding, "loop", CONNECTIONS, rate, p50=1 / rate, p99=1 / rate)
        )

    def _seconds(self, model: ServedModel) -> float:
        return self.plan.seconds * _TIMES.get(model.name, 1.0)

    def _points(self, served: Served, *, whole: bool) -> Iterator[Point]:
        """What a target is about; the `whole` has the points between which a curve is drawn, too."""
        for encoding, connections in self._closed_loops(served, whole=whole):
            yield Point("closed", encoding, connections)
        for rate in self._open_rates(served, whole=whole):
            yield Point("open", "json", rate)
        if served.model is BERT:
            for share in self.plan.offered:
                yield Point("poisson", "json", round(share * self.capacity, 1))

    def _closed_loops(self, served: Served, *, whole: bool) -> Iterator[tuple[str, int]]:
        """JSON of an image is megabytes, and a closed loop of one sentence says little: one number of them will do."""
        binary = served.subject.binary and (served.model is not BERT or whole)
        for encoding in ("json", "binary") if binary else ("json",):
            every = served.model is MLP or (served.model is RESNET50 and encoding == "binary")
            for connections in self.plan.connections if every and whole else (CONNECTIONS,):
                yield encoding, connections

    def _open_rates(self, served: Served, *, whole: bool) -> list[float]:
        if served.model is not MLP:
            return []
        top = self.tops[served.name]
        own = {float(round(share * top)) for share in self.plan.shares} if whole else set()
        # The same for all, as far as each goes: half of the best peer's top rate, all of it, and twice that.
        common = (
            {self.half * times for times in (1, 2, 4) if times == 1 or self.half * times < top} if self.half else set()
        )
        return sorted(own | common)

    def _measure(self, served: Served, server: Server, *, turn: int, point: Point) -> None:
        server.settle()
        measured = self._closed if point.load == "closed" else self._open
        self._keep(measured(served, server, turn=turn, point=point))

    def _closed(self, served: Served, server: Server, *, turn: int, point: Point) -> Sample:
        request = _request(served, binary=point.encoding == "binary")
        model = served.model
        done = closed_loop(
            server.port,
            request,
            connections=int(point.level),
            seconds=self._seconds(model),
            lead=_LEAD.get(model.name, 0.0),
        )
        return _sample(
            served, point, turn, rate=done.rate, p50=done.p50, p99=done.p99, refused=done.refused, failed=done.failed
        )

    def _open(self, served: Served, server: Server, *, turn: int, point: Point) -> Sample:
        seconds = self._seconds(served.model)
        if point.load == "open":
            due, requests = figures.evenly(point.level, seconds), [_request(served, binary=False).encoded()]
        else:
            # All subjects get the same sentences at the same times.
            due, requests = figures.poisson(point.level, seconds, random=random.Random(turn)), _sentences(served)
        done = OpenLoop(server.port, due, requests=requests).run()
        return _sample(
            served, point, turn,
            rate=len(done.latencies) / seconds,
            p50=figures.percentile(done.latencies, 0.5),
            p99=figures.percentile(done.latencies, 0.99),
            refused=done.refused,
            failed=done.failed,
            goodput=figures.goodput(done.latencies, objective=OBJECTIVE, seconds=seconds),
            lag=done.lag,
        )  # fmt: skip

    def _keep(self, sample: Sample) -> None:
        self.samples.append(sample)
        wrong = f", {sample.refused} refused, {sample.failed} failed" if sample.refused or sample.failed else ""
        good = f", {sample.goodput:.1f}/s good" if sample.load == "poisson" else ""
        self.say(
            f"  {sample.subject}: {sample.rate:.1f}/s{good}, p50 {sample.p50 * 1e3:.2f} ms, "
            f"p99 {sample.p99 * 1e3:.2f} ms{wrong}"
        )


def _text(point: Point) -> str:
    level = f"{point.level:g} connections" if point.load == "closed" else f"{point.level:g}/s due"
    return f"{point.encoding}, {level}"


def _sample(served: Served, point: Point, turn: int, **measured: Any) -> Sample:
    return Sample(
        turn, served.name, served.subject.kind, served.model.name, point.encoding, point.load, point.level,
        batch=served.variant.batch, **measured,
    )  # fmt: skip


def samples_of(model: ServedModel, count: int) -> list[Arrays]:
    """The inputs of `count` requests, the same in every run."""
    drawn = np.random.default_rng(1)
    return [model.sample(drawn) for _ in range(count)]


def _request(served: Served, *, binary: bool) -> wire.Post:
    return _post(served, samples_of(served.model, 1)[0], binary=binary)


def _sentences(served: Served) -> list[bytes]:
    return [_post(served, each, binary=False).encoded() for each in samples_of(served.model, _SENTENCES)]


def _post(served: Served, arrays: Arrays, *, binary: bool) -> wire.Post:
    return wire.post(served.model.name, padded(arrays) if served.variant.padded else arrays, binary=binary)


def _expected(model: ServedModel, count: int) -> list[Arrays]:
    """What onnxruntime alone answers to the requests that every server is checked with."""
    session = engine.session(engine.Options(model.file(), model.name, 0, model.threads or cores(), 1, 0))
    names = [each.name for each in session.get_outputs()]
    return [dict(zip(names, session.run(None, each), strict=True)) for each in samples_of(model, count)]


def _check_at_once(served: Served, server: Server, expected: Sequence[Arrays]) -> None:
    """Asks different things at the same time: each has to get its own answer, however the server batches them."""
    encodings = (False, True) if served.subject.binary else (False,)
    for binary in encodings:
        requests = [_post(served, each, binary=binary) for each in samples_of(served.model, len(expected))]
        with ThreadPoolExecutor(len(requests)) as clients:
            answers = list(clients.map(functools.partial(_insist, server.port), requests))
        for answer, right in zip(answers, expected, strict=True):
            if wrong := differences(answer, right):
                encoding = "binary" if binary else "JSON"
                raise ServerError(f"{served.name} answers {len(requests)} at once wrongly in {encoding}: {wrong}")


def _insist(port: int, request: wire.Post) -> Arrays:
    """Its answer, asked for again where it is too busy: a refusal is not a wrong answer."""
    for _ in range(_TRIES):
        try:
            return wire.ask(port, request)
        except wire.StatusError as error:
            if error.status != HTTPStatus.TOO_MANY_REQUESTS:
                raise
            threading.Event().wait(_AGAIN)
    return wire.ask(port, request)


def _engine_rate(model: ServedModel, seconds: float) -> float:
    """Inferences a second of the bare engine, on sentences of all lengths where it takes sentences."""
    with tempfile.TemporaryDirectory(prefix="openclaw-bench-") as folder:
        inputs = Path(folder) / "inputs.npz"
        requests = samples_of(model, _SENTENCES if model is BERT else 1)
        keyed = {f"{number}/{name}": array for number, each in enumerate(requests) for name, array in each.items()}
        np.savez(inputs, **keyed)  # type: ignore[arg-type]  # numpy's stub takes every keyword for allow_pickle
        options = ["--model", str(model.file()), "--inputs", str(inputs), "--threads", str(model.threads or cores())]
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.serving.peers.loop", *options, "--seconds", str(seconds)],
            env=Served(Subject(LOOP, "bare", "loop"), model).environment(),
            capture_output=True,
            text=True,
            timeout=seconds + 120,
            check=True,
        )
    return float(json.loads(done.stdout)["rate"])
