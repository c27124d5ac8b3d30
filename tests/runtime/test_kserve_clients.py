"""The server against KServe's own clients."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.environments import bin_of


@pytest.mark.timeout(600)  # the first time, which installs them
def test_kserves_clients_agree_over_rest_v1_and_grpc(start_server: Callable[..., Any], models: Any) -> None:
    python = bin_of("kserve") / "python"
    server = start_server(models.digits(), "--grpc-port", 0, "--drain-delay", 0).wait_ready()
    address = f"127.0.0.1:{server.wait_for(r'gRPC on port ([0-9]+)').group(1)}"
    client = Path(__file__).with_name("kserve_client.py")
    ended = subprocess.run(
        [python, client, server.url, address], capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.stdout.endswith("all agree\n"), ended.stdout + ended.stderr
    assert server.stop() == 0
