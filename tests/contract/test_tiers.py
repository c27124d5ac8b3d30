"""What the runtime says of a model's tier is what the operator reads."""

import orjson
import pytest

from openclaw.memory.tiers import Tier
from openclaw.serving.statistics import Statistics, document
from openclaw_operator.tiers import TIERS, told


def test_both_know_the_same_tiers() -> None:
    assert [tier.value for tier in Tier] == list(TIERS)


@pytest.mark.parametrize("tier", Tier)
def test_the_operator_finds_the_tier_in_the_servers_statistics(tier: Tier) -> None:
    body = orjson.dumps({"model_stats": [document("digits", "1", Statistics(), tier=tier)]})
    assert told(body) == tier.value
