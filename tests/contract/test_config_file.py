"""What the operator renders for a pod is what the runtime in it understands."""

import json
import re
from pathlib import Path

import pytest
from aiohttp import ClientSession
from hypothesis import given
from testcluster.paths import REPOSITORY

from openclaw import cli, errors
from openclaw.config import ModelConfig, ServerConfig, ServerOptions
from openclaw.serving import settings, termination
from openclaw.serving.counters import SharedCounters
from openclaw.serving.frontends import Frontends
from openclaw.serving.lifecycle import listen, make_repository, shown_address
from openclaw.serving.telemetry import Telemetry
from openclaw.storage import cache, uri
from openclaw_operator.api.spec import Model, Runtime, Warmup
from openclaw_operator.api.uri import URI_SCHEMES
from openclaw_operator.api.v1alpha1 import InferenceService
from openclaw_operator.config import PREFIX, Config
from openclaw_operator.diagnose import diagnose
from openclaw_operator.names import Manifest
from openclaw_operator.observe import Observed, Pod
from openclaw_operator.render.revision import Revision, new_revision
from openclaw_operator.render.server_config import FILE, config_map
from openclaw_operator.status import condition, served
from simulation import services
from simulation.services import having


def revision_of(service: InferenceService) -> Revision:
    return new_revision(service, Config(), number=1, default_image="runtime:1")


def container_of(service: InferenceService) -> Manifest:
    containers = revision_of(service).template["spec"]["containers"]
    return next(each for each in containers if each["name"] == "server")


def read(service: InferenceService, folder: Path) -> ServerConfig:
    """The configuration as the runtime reads it from the mounted file."""
    (folder / FILE).write_text(config_map(service, revision_of(service).server_config)["data"][FILE])
    return settings.layered(folder / FILE, (), {})


@given(spec=services.specs)
def test_every_file_that_is_rendered_is_understood_and_says_what_the_user_wrote(
    spec: Manifest, tmp_path_factory: pytest.TempPathFactory
) -> None:
    config = read(services.service(spec), tmp_path_factory.getbasetemp())
    model, runtime = spec["model"], spec.get("runtime", {})
    assert config.model.uri == model["uri"]
    assert config.model.name == model.get("name", "digits")
    assert config.model.sha256 == model.get("sha256")
    assert config.model.format == "onnx"
    assert config.model.warmup.requests == model.get("warmup", {}).get("requests", 1)
    assert config.server.workers == runtime.get("workers", 1)
    assert config.server.threads == runtime.get("threads")
    assert config.server.grpc_port == (8081 if runtime.get("grpc") else None)
    batching, wanted = config.model.batching, runtime.get("batching", {})
    assert batching.max_batch_size == wanted.get("maxBatchSize", 32)
    assert (batching.latency_target_seconds or 0) * 1000 == pytest.approx(wanted.get("latencyTargetMilliseconds", 0))
    assert batching.max_queue_length == wanted.get("maxQueueLength", 1024)
    assert (batching.padding, batching.mask) == (wanted.get("padding", "auto"), wanted.get("mask"))


EXTREMES: dict[str, Manifest] = {
    "everything at its most": {
        "model": {"uri": "s3://b/" + "k" * 2041, "name": "n" * 128, "warmup": {"requests": 1000}},
        "runtime": {"workers": 64, "threads": 256},
        "probes": {"startup": {"periodSeconds": 86400, "failureThreshold": 100000}},
    },
    "everything at its least": {
        "model": {"uri": "file:///m", "name": "n", "warmup": {"requests": 0}},
        "runtime": {"workers": 1, "threads": 1},
        "probes": {"startup": {"periodSeconds": 1, "failureThreshold": 1}},
    },
    "the longest name of a service": services.LEAST,
}


@pytest.mark.parametrize("spec", EXTREMES.values(), ids=EXTREMES.keys())
def test_the_bounds_of_the_api_lie_within_those_of_the_runtime(spec: Manifest, tmp_path: Path) -> None:
    config = read(services.service(spec, name="a" * 50), tmp_path)
    assert uri.parse(config.model.uri).text == spec["model"]["uri"]


@given(spec=services.specs)
def test_every_uri_that_the_api_takes_is_one_that_the_runtime_opens(spec: Manifest) -> None:
    assert str(uri.parse(services.service(spec).spec.model.uri)) == spec["model"]["uri"]


def test_both_know_the_same_schemes_and_defaults() -> None:
    assert set(URI_SCHEMES) == set(uri.SCHEMES)
    assert Warmup().requests == ServerConfig.model_validate({"model": {"name": "n", "uri": "u"}}).model.warmup.requests
    assert Model(uri="file:///m").format == "onnx"
    assert Runtime().workers is None
    assert ServerOptions().workers == 1


def test_the_server_listens_where_the_pod_says_and_probes_ask_what_it_answers() -> None:
    container = container_of(services.service())
    (port,) = container["ports"]
    assert (
        port["containerPort"]
        == ServerOptions().port
        == json.loads(revision_of(services.service()).server_config)["server"]["port"]
    )
    paths = set()
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        request = container[probe]["httpGet"]
        assert request["port"] == port["name"]
        paths.add(request["path"])
    assert paths == {"/v2/health/ready", "/v2/health/live"}


async def test_probes_are_answered_by_a_server_that_loads_and_by_one_that_drains() -> None:
    options = ServerOptions(host="127.0.0.1", port=0)
    config = ServerConfig(model=ModelConfig(name="digits", uri="file:///m"), server=options)
    repository = make_repository(config, Telemetry(SharedCounters()))
    container = container_of(services.service())
    listener = listen(options, shared=False)
    frontends = await Frontends.start(repository, [listener], options)
    async with ClientSession(f"http://{shown_address(listener)}") as client:

        async def answers() -> list[int]:
            probes = ("livenessProbe", "startupProbe", "readinessProbe")
            return [(await client.get(container[probe]["httpGet"]["path"])).status for probe in probes]

        assert await answers() == [200, 503, 503]
        repository.drain()
        assert await answers() == [200, 503, 503]
    await frontends.stop(1)


@given(spec=services.specs.filter(lambda spec: "args" not in spec.get("runtime", {})))
def test_the_command_of_the_pod_is_one_that_the_runtime_has(spec: Manifest) -> None:
    container = container_of(services.service(spec))
    (program, (command, *arguments)) = (container["command"], container["args"])
    assert program == ["openclaw"]
    context = cli.main.commands[command].make_context(command, list(arguments))
    (mount,) = [each for each in container["volumeMounts"] if each["name"] == "config"]
    assert context.params["config"] == Path(mount["mountPath"]) / FILE


def test_arguments_of_the_user_come_after_those_of_the_operator() -> None:
    container = container_of(services.service(having(runtime={"args": ["--drain-delay=10"]})))
    context = cli.main.commands["serve"].make_context("serve", container["args"][1:])
    assert context.params["drain_delay"] == 10


def test_the_model_is_kept_where_the_pod_has_room_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    container = container_of(services.service())
    for variable in container["env"]:
        monkeypatch.setenv(variable["name"], variable["value"])
    (mount,) = [each for each in container["volumeMounts"] if each["name"] == "cache"]
    assert cache.default_folder() == Path(mount["mountPath"])


def test_a_pod_is_given_the_time_that_the_server_takes_to_drain() -> None:
    grace = revision_of(services.service()).template["spec"]["terminationGracePeriodSeconds"]
    assert grace > ServerOptions().drain_delay_seconds + ServerOptions().drain_timeout_seconds


def failed(line: str, code: int) -> Manifest:
    ended = {"exitCode": code, "reason": "Error", "message": line}
    return {
        "metadata": {"name": "digits-a-1"},
        "status": {
            "containerStatuses": [
                {"name": "server", "restartCount": 3, "lastState": {"terminated": ended}, "state": {"waiting": {}}}
            ]
        },
    }


@pytest.mark.parametrize("error", errors.STARTUP_ERRORS.values(), ids=errors.STARTUP_ERRORS.keys())
def test_the_reason_why_a_server_did_not_start_becomes_the_reason_of_the_condition(
    error: type[errors.StartupError],
) -> None:
    pod = failed(termination.failure_line(error("this is wrong, write that")) + "\n", error.exit_code)
    problem = diagnose([pod])
    assert problem is not None
    assert (problem.reason, problem.message) == (error.__name__, "this is wrong, write that")
    service = services.service()
    revision = revision_of(service)
    observed = Observed(pods=(Pod(name="p", slot="a", revision=revision.hash, ready=False, live=True, manifest=pod),))
    status = served(service, revision, observed, least=1, url="http://x", now="2026-01-01T00:00:00Z")
    assert condition(status, "Ready")["reason"] == error.__name__
    loaded = condition(status, "ModelLoaded")
    assert (loaded["status"] == "False") == error.__name__.startswith("Model")


def test_the_longest_report_of_a_server_still_fits_and_is_understood() -> None:
    line = termination.failure_line(errors.ModelInvalid("ü" * 10_000))
    assert len(line.encode()) <= 4096
    problem = diagnose([failed(line, 78)])
    assert problem is not None
    assert problem.reason == "ModelInvalid"


def test_every_variable_that_the_chart_gives_the_operator_is_one_of_its_settings() -> None:
    template = (REPOSITORY / "charts/openclaw/templates/deployment.yaml").read_text()
    given = set(re.findall(rf"name: {PREFIX}([A-Z_]+)", template))
    assert given
    assert given <= {name.upper() for name in Config.model_fields}
