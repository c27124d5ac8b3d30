"""A server serves the form that was prepared of its model, and the model itself where there is none that fits."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest

from openclaw.storage.prepared import digest_of, form_of, place_of


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "prepared"
    made.mkdir()
    return made


def scores(server: Any) -> list[float]:
    data = {"name": "image", "shape": [1, 64], "datatype": "FP32", "data": [0.5] * 64}
    request = Request(f"{server.url}/v2/models/digits/infer", json.dumps({"inputs": [data]}).encode())
    with urlopen(request, timeout=10) as answer:
        numbers: list[float] = json.loads(answer.read())["outputs"][0]["data"]
        return numbers


def test_the_form_made_of_the_very_file_is_served_under_the_models_name(
    models: Any, start_server: Any, folder: Path
) -> None:
    plain = start_server(models.digits(), "--drain-delay", 0).wait_ready()
    expected = scores(plain)
    # A form that gives three times as much tells which one answers.
    shutil.copy(models.digits(3.0), place_of(folder, digest_of(models.digits())))
    server = start_server(models.digits(), "--prepared", folder, "--drain-delay", 0).wait_ready()
    assert scores(server) == pytest.approx([3 * score for score in expected], rel=1e-5)
    assert "digits is served in its optimized form" in server.log


def test_workers_serve_it_too(models: Any, start_server: Any, folder: Path) -> None:
    shutil.copy(models.digits(3.0), place_of(folder, digest_of(models.digits())))
    settings = {"OPENCLAW_PREPARED": str(folder)}
    plain = start_server(models.digits(), "--drain-delay", 0).wait_ready()
    server = start_server(models.digits(), "--workers", 2, "--drain-delay", 0, **settings).wait_ready()
    assert scores(server) == pytest.approx([3 * score for score in scores(plain)], rel=1e-5)


@pytest.mark.parametrize("damage", ["no ONNX", "cut short", "of another file"])
def test_a_form_that_cannot_be_served_costs_nothing_but_its_gain(
    models: Any, start_server: Any, folder: Path, *, damage: str
) -> None:
    whole = models.digits(3.0).read_bytes()
    content = {"no ONNX": b"\x00" * 100, "cut short": whole[: len(whole) // 2], "of another file": whole}[damage]
    made_of = models.digits(2.0) if damage == "of another file" else models.digits()
    place_of(folder, digest_of(made_of)).write_bytes(content)
    plain = start_server(models.digits(), "--drain-delay", 0).wait_ready()
    server = start_server(models.digits(), "--prepared", folder, "--drain-delay", 0).wait_ready()
    assert scores(server) == scores(plain)
    assert ("is not served, but the model itself" in server.log) == (damage != "of another file")


def test_a_folder_that_is_not_there_holds_no_form(models: Any, tmp_path: Path) -> None:
    assert form_of(tmp_path / "nowhere", models.digits()) is None
