"""Real servers in local mode tell in which tier they have their model, and the status shows it."""

from typing import Any

from support.local_mode import LocalMode, service, write
from support.products import products
from support.waiting import until

LAYERS = 24  # of a mebibyte each
ARGUMENTS = ["--drain-delay", "1"]


async def tiers(local: LocalMode, name: str) -> list[dict[str, Any]]:
    """What the status shows."""
    found = await local.get(name)
    assert found is not None
    shown: list[dict[str, Any]] = (found["status"].get("model") or {}).get("tiers") or []
    return shown


async def loaded(local: LocalMode, name: str) -> str:
    """The message of the condition ModelLoaded."""
    found = await local.get(name)
    assert found is not None
    conditions = found["status"]["conditions"]
    return next(str(each["message"]) for each in conditions if each["type"] == "ModelLoaded")


async def test_an_ordinary_model_is_packed_and_one_larger_than_its_budget_is_mapped(local: LocalMode) -> None:
    products(local.folder / "large.onnx", *range(LAYERS))
    small = [*ARGUMENTS, "--memory-budget", "20MiB"]
    two = {"minReplicas": 2, "maxReplicas": 2}
    ended = local.up(
        write(
            local.folder / "tiers.yaml",
            service("roomy", "file://./large.onnx", runtime={"args": ARGUMENTS}, scaling=two),
            service("cramped", "file://./large.onnx", runtime={"args": small}),
        )
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr

    async def both_are_told() -> bool:
        return await tiers(local, "roomy") == [{"tier": "packed", "pods": 2}] and await tiers(local, "cramped") == [
            {"tier": "mapped", "pods": 1}
        ]

    await until(both_are_told)
    assert "do not fit into memory" not in await loaded(local, "roomy")
    assert "in 1 of 1 pod its weights do not fit into memory" in await loaded(local, "cramped")
    assert (await local.ready("cramped")).ready
    shown = local.run("get", "cramped", "-o", "yaml").stdout
    assert "tier: mapped" in shown
