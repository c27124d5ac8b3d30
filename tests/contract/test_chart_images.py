"""What the images, the pods that the operator renders, and the chart have to agree on."""

import json
import re
import tomllib

import pytest
import yaml
from testcluster.paths import REPOSITORY

from openclaw_operator import names
from openclaw_operator.config import Config
from openclaw_operator.render import pod

PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
DOCKERFILE = (REPOSITORY / "images/Dockerfile").read_text().replace("\\\n", " ")
CHART = REPOSITORY / "charts/openclaw"


def stage(name: str) -> str:
    """The instructions of one stage."""
    (found,) = re.findall(rf"^FROM \S+ AS {name}$(.*?)(?=^FROM |\Z)", DOCKERFILE, re.MULTILINE | re.DOTALL)
    return str(found)


def instruction(name: str, text: str) -> str:
    (found,) = re.findall(rf"^{name} (.+)$", text, re.MULTILINE)
    return str(found)


@pytest.mark.parametrize(
    ("image", "command", "arguments"),
    [
        ("runtime", "openclaw", ["serve"]),
        ("operator", "openclaw-operator", ["run"]),
        ("optimizer", "openclaw", ["prepare"]),
    ],
)
def test_an_image_begins_with_a_command_of_the_package(image: str, command: str, arguments: list[str]) -> None:
    assert json.loads(instruction("ENTRYPOINT", stage(image))) == [command]
    assert json.loads(instruction("CMD", stage(image))) == arguments
    assert command in PROJECT["scripts"]


def test_an_image_is_of_the_packages_version() -> None:
    versions = re.findall(r"^ARG VERSION=(.+)$", DOCKERFILE, re.MULTILINE)
    assert versions == [PROJECT["version"]] * 3
    assert PROJECT["version"] in Config().runtime_image
    assert PROJECT["version"] in Config().optimizer_image


def test_images_run_as_the_user_that_pods_run_as() -> None:
    assert instruction("USER", stage("base")) == f"{pod.USER}:{pod.USER}"
    deployment = (CHART / "templates/deployment.yaml").read_text()
    assert f"runAsUser: {pod.USER}" in deployment


def test_the_runtime_keeps_models_where_pods_have_a_volume_for_them() -> None:
    for image in ("runtime", "optimizer"):
        assert instruction("ENV", stage(image)) == f"OPENCLAW_CACHE_DIR={pod.CACHE_DIR}"
    assert instruction("EXPOSE", stage("runtime")) == f"{names.PORT} {names.GRPC_PORT}"


def test_the_operators_ports_are_those_of_its_settings_and_of_the_chart() -> None:
    ports = [Config().health_port, Config().metrics_port]
    assert [int(port) for port in instruction("EXPOSE", stage("operator")).split()] == ports
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    assert list(values["ports"].values()) == ports


def test_the_base_is_a_version_of_python_that_the_package_supports() -> None:
    version = re.findall(r"^ARG BASE=python:([\d.]+)-slim$", DOCKERFILE, re.MULTILINE)
    assert version == ["3.11"]
    assert f"Programming Language :: Python :: {version[0]}" in PROJECT["classifiers"]
