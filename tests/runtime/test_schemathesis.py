"""Whatever schemathesis makes of the OpenAPI document, the server answers as the document says."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.environments import bin_of

# Requests that fit the document but not the model are refused, which this check takes for a mistake.
_EXPECTED = "positive_data_acceptance"


@pytest.mark.timeout(600)  # the first time, which installs it
def test_every_request_is_answered_as_the_document_says(
    start_server: Callable[..., Any], models: Any, tmp_path: Path
) -> None:
    program = bin_of("schemathesis") / "schemathesis"
    server = start_server(models.digits(), models.pair(), "--shared-memory", "--max-request-bytes", 2**20).wait_ready()
    ended = subprocess.run(
        [
            program, "run", f"{server.url}/openapi.json", "--max-examples=25", "--phases=examples,coverage,fuzzing",
            f"--exclude-checks={_EXPECTED}", "--seed=1", "--request-timeout=10", "--no-color",
        ],
        capture_output=True, text=True, timeout=300, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout[-8000:] + ended.stderr
    assert "Traceback" not in server.log
    assert server.process.poll() is None
