"""Who is measured, and how each is started for each model.

A peer has several variants for a model where it is not clear which one is its best: all are measured, and its best one
counts.
"""

from __future__ import annotations

import os
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from benchmarks.serving.environments import Environment
from benchmarks.serving.models import BERT, MLP, ServedModel

ROOT = Path(__file__).parents[2]
OPENCLAW = "openclaw"
BARE = "bare protocol"
_BATCH = 16

Kind = Literal["ours", "peer", "bare"]


@dataclass(frozen=True, slots=True)
class Variant:
    """How a subject serves a model.

    Attributes:
        batch: rows that it may put together; 1: none.
        padded: whether clients pad sentences to the longest there is, so that a server that only joins equal
            shapes can batch at all.
        objective: seconds within which an answer is worth something, where the server is told.
    """

    batch: int = 1
    padded: bool = False
    objective: float | None = None

    @property
    def text(self) -> str:
        """In words; empty for the plain one."""
        parts = [f"batches of {self.batch}"] if self.batch > 1 else []
        parts += ["padded"] if self.padded else []
        parts += [f"told {self.objective * 1e3:.0f} ms"] if self.objective else []
        return ", ".join(parts)


_PLAIN = (Variant(),)
_BATCHED = Variant(_BATCH)
_PADDED = Variant(_BATCH, padded=True)
OBJECTIVE = 0.5
"""Seconds, from when a sentence was due."""
_TOLD = Variant(objective=OBJECTIVE)


@dataclass(frozen=True, slots=True)
class Subject:
    """A server under measurement.

    Attributes:
        module: what runs it in its environment; None for openclaw, which has a command.
        environment: None: the one that runs the benchmark.
        binary: whether it takes and gives binary tensors over HTTP.
        pausable: whether it outlives a pause: Triton takes a paused inference process for dead.
        variants: for each model, by its name; plain where none is given.
    """

    name: str
    kind: Kind
    module: str | None
    environment: Environment | None = None
    binary: bool = True
    pausable: bool = True
    variants: tuple[tuple[str, tuple[Variant, ...]], ...] = ()

    def variants_for(self, model: ServedModel) -> tuple[Variant, ...]:
        """The ways in which it serves `model`."""
        return dict(self.variants).get(model.name, _PLAIN)

    @property
    def ready(self) -> bool:
        """Whether what it needs is installed."""
        return self.environment is None or self.environment.installed


SUBJECTS = (
    Subject(OPENCLAW, "ours", None, variants=((BERT.name, (Variant(), _TOLD)),)),
    Subject(
        "mlserver",
        "peer",
        "serve_mlserver",
        Environment("mlserver", ("mlserver==1.7.1",)),
        binary=False,
        variants=((MLP.name, (Variant(), _BATCHED)), (BERT.name, (Variant(), _PADDED))),
    ),
    Subject("kserve", "peer", "serve_kserve", Environment("kserve", ("kserve==0.21.0",))),
    Subject(
        "litserve",
        "peer",
        "serve_litserve",
        Environment("litserve", ("litserve==0.2.19",)),
        binary=False,
        variants=((MLP.name, (Variant(), _BATCHED)), (BERT.name, (Variant(), _BATCHED))),
    ),
    Subject(
        "pytriton",
        "peer",
        "serve_pytriton",
        Environment("pytriton", ("nvidia-pytriton==0.7.0",)),
        pausable=False,
        variants=((MLP.name, (_BATCHED,)), (BERT.name, (_BATCHED, _PADDED))),
    ),
    Subject(BARE, "bare", "serve_bare"),
)


AT_ONCE = ("--drain-delay", "0")  # no load balancer has to hear of its end


@dataclass(frozen=True, slots=True)
class Served:
    """One subject with one model in one way: what is started and measured.

    Attributes:
        arguments: more of the command line of `openclaw serve`.
    """

    subject: Subject
    model: ServedModel
    variant: Variant = Variant()
    arguments: tuple[str, ...] = AT_ONCE

    @property
    def name(self) -> str:
        """As tables have it."""
        return f"{self.subject.name} ({self.variant.text})" if self.variant.text else self.subject.name

    def command(self, port: int, spare: int) -> list[str]:
        """The command line; `spare` is the first of some free ports."""
        path, name = str(self.model.file()), self.model.name
        environment = self.subject.environment
        python = sys.executable if environment is None else str(environment.python)
        if self.subject.module is None:
            options = ["--name", name, "--host", "127.0.0.1", "--port", str(port), *self.arguments]
            options += ["--latency-target", str(self.variant.objective)] if self.variant.objective else []
            return [python, "-m", "openclaw", "serve", path, *options]
        options = ["--model", path, "--name", name, "--port", str(port), "--spare", str(spare)]
        sizes = ["--threads", str(self.model.threads or cores()), "--batch", str(self.variant.batch)]
        return [python, "-m", f"benchmarks.serving.peers.{self.subject.module}", *options, *sizes]

    def environment(self) -> dict[str, str]:
        """The variables of its process."""
        variables = {**os.environ, "PYTHONUNBUFFERED": "1"}
        # What is installed has its bytecode; what compiles itself at every start is nobody's server.
        variables.pop("PYTHONDONTWRITEBYTECODE", None)
        if self.subject.environment is not None:
            # Its own packages and these small servers, nothing of the environment that runs the benchmark.
            variables["PYTHONPATH"] = str(ROOT)
            # Triton's Python backend links libpython, which is not where the system's linker looks.
            variables["LD_LIBRARY_PATH"] = str(sysconfig.get_config_var("LIBDIR"))
            variables["VIRTUAL_ENV"] = str(self.subject.environment.folder)
            variables["PATH"] = f"{self.subject.environment.python.parent}{os.pathsep}{variables['PATH']}"
        else:
            variables["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(ROOT / "runtime"), str(ROOT / "operator")])
        return variables


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))
