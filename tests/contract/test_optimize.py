"""What the operator renders for the step before a server, and what it reads of it, is what the runtime has."""

import json
from pathlib import Path
from typing import Any

import click
import pytest
from hypothesis import given

from openclaw import cli
from openclaw.optimizer.accuracy.budget import parse
from openclaw.optimizer.options import TIME_LIMIT
from openclaw.optimizer.results.report import Machine
from openclaw.optimizer.step.prepare import TIMEOUT
from openclaw.optimizer.step.summary import Summary, failed
from openclaw.storage.uri import BUCKETS
from openclaw_operator import names
from openclaw_operator.api.optimize import Optimize
from openclaw_operator.api.uri import STORES
from openclaw_operator.api.v1alpha1 import Optimization
from openclaw_operator.config import Config
from openclaw_operator.names import Manifest
from openclaw_operator.optimization import optimizations
from openclaw_operator.render.revision import new_revision
from simulation import services
from simulation.services import having

CONFIG = Config(optimizer_cache_uri="s3://models/optimized")


def pod_of(spec: Manifest) -> Manifest:
    revision = new_revision(services.service(spec), CONFIG, number=1, default_image="runtime:1")
    return dict(revision.template["spec"])


def asked(step: Manifest) -> dict[str, Any]:
    """What the runtime makes of the step's command."""
    assert step["command"] == ["openclaw"]
    name, *arguments = step["args"]
    command = cli.main.get_command(click.Context(cli.main), name)
    assert command is not None
    return dict(command.make_context(name, list(arguments)).params)


@given(optimize=services.optimizations.filter(lambda optimize: optimize["mode"] != "off"))
def test_the_step_is_a_command_that_the_runtime_has_and_says_what_the_user_wrote(optimize: Manifest) -> None:
    (step,) = pod_of(having(runtime={"optimize": optimize}))["initContainers"]
    params = asked(step)
    assert params["precision"] == optimize["mode"]
    assert params["cache"] == optimize["cacheUri"]
    assert params["calibration"] == optimize.get("calibration", {}).get("uri")
    assert params["accuracy_budget"] == optimize.get("accuracyBudget")
    assert params["timeout"] == optimize.get("timeoutSeconds", TIMEOUT)
    if budget := optimize.get("accuracyBudget"):
        assert parse(budget).bounds


def test_the_step_leaves_the_form_where_the_server_looks_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    pod = pod_of(services.OPTIMIZED)
    (server,), (*_, step) = pod["containers"], pod["initContainers"]
    folder = asked(step)["folder"]
    for variable in server["env"]:
        monkeypatch.setenv(variable["name"], variable["value"])
    context = cli.main.commands["serve"].make_context("serve", list(server["args"][1:]))
    assert Path(context.params["prepared"]) == folder
    for container, read_only in ((server, True), (step, None)):
        (mount,) = [each for each in container["volumeMounts"] if each["mountPath"] == str(folder)]
        assert mount.get("readOnly") is read_only
        assert mount["name"] in [volume["name"] for volume in pod["volumes"]]
    assert asked(step)["config"] == context.params["config"]


def ended(message: str) -> Manifest:
    state = {"terminated": {"exitCode": 0, "reason": "Completed", "message": message}}
    return {"metadata": {"name": "p"}, "status": {"initContainerStatuses": [{"name": names.OPTIMIZE, "state": state}]}}


MACHINE = Machine(processor="p" * 500, instructions=["avx2"], cores=2, threads=2, system="Linux")

FULL = Summary(
    mode="auto", outcome="Optimized", node_type="n" * 200, form="int8-static", precision="int8", latency_percent=41,
    accuracy="top1 0.9990", nodes_before=90, nodes_after=30, size_percent=26, cached=True, reason="r" * 500,
)  # fmt: skip


@pytest.mark.parametrize("summary", [FULL, failed("x" * 10_000, "fp32", MACHINE)], ids=["full", "failed"])
def test_what_the_step_says_in_the_end_is_what_the_status_shows(summary: Summary) -> None:
    (entry,) = optimizations([ended(summary.line() + "\n")])
    assert (entry.pop("pods"), entry.pop("cached")) == (1, int(summary.cached))
    assert entry == {key: value for key, value in json.loads(summary.line())["optimization"].items() if key != "cached"}


def test_every_field_of_the_summary_has_its_place_in_the_status() -> None:
    told = {field.alias for field in Summary.model_fields.values()}
    shown = {field.alias for field in Optimization.model_fields.values()}
    assert shown - told == {"pods"}
    assert told <= shown


def test_both_know_the_same_stores_and_times() -> None:
    assert set(STORES) == {*BUCKETS, "file"}
    assert Optimize().seconds == TIMEOUT
    assert TIMEOUT / 4 >= TIME_LIMIT, "by default it has the time that the command has"
