"""What the servers in the pods of a simulation answer."""

import asyncio
import json
from collections.abc import Callable

from openclaw_operator.cluster.port import UnreachableError
from openclaw_operator.tiers import Question

LATENCY = 0.01  # virtual seconds


class Servers:
    """Implements `cluster.port.Pods`.

    Attributes:
        tier: From a question: the tier that the pod names, or None where it cannot be reached, as at first none can.
        asked: The questions so far.
    """

    def __init__(self) -> None:
        self.tier: Callable[[Question], str | None] = lambda _: None
        self.asked: list[Question] = []

    async def statistics(self, question: Question) -> bytes:
        await asyncio.sleep(LATENCY)
        self.asked.append(question)
        tier = self.tier(question)
        if tier is None:
            raise UnreachableError(f"no route to {question.host}")
        return json.dumps({"model_stats": [{"name": question.model, "tier": tier}]}).encode()
