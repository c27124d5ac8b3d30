"""The API server accepts what the documentation shows, and refuses what is for one machine only."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from testcluster import CommandError, ControlPlane

from openclaw_operator.api.v1alpha1 import KIND
from support.markdown import REPOSITORY, blocks

LOCAL_ONLY = "file://./"


def examples() -> Iterator[Any]:
    """Every InferenceService that the docs and the examples show."""
    texts = {str(block): block.text for block in blocks("yaml") if f"kind: {KIND}" in block.text}
    texts |= {file.name: file.read_text(encoding="utf-8") for file in (REPOSITORY / "examples").rglob("*.yaml")}
    for place, text in texts.items():
        for number, manifest in enumerate(yaml.safe_load_all(text)):
            yield pytest.param(manifest, id=f"{place}-{number}")


@pytest.mark.usefixtures("definition")
@pytest.mark.parametrize("manifest", list(examples()))
async def test_an_example_is_accepted_unless_it_is_for_one_machine(
    control_plane: ControlPlane, manifest: dict[str, Any]
) -> None:
    manifest["metadata"]["namespace"] = "default"
    dry_run = ("apply", "--dry-run=server", "--validate=strict", "--filename=-")
    if manifest["spec"]["model"]["uri"].startswith(LOCAL_ONLY):
        with pytest.raises(CommandError, match="works in local mode only"):
            await control_plane.kubectl(*dry_run, input=json.dumps(manifest))
    else:
        said = await control_plane.kubectl(*dry_run, input=json.dumps(manifest))
        assert said.strip().endswith("created (server dry run)")
