"""Asks pods, in the background, for what no watch tells: in which tier of memory they have their model."""

import asyncio
import logging
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping

from openclaw_operator.cluster.port import Pods, UnreachableError
from openclaw_operator.cluster.queue import Queue
from openclaw_operator.names import Key
from openclaw_operator.telemetry import Telemetry
from openclaw_operator.tiers import Incarnation, Question, told

log = logging.getLogger(__name__)

AT_ONCE = 4
PAUSE = 0.1
"""Seconds that each of those who ask rests after an answer: together they take no more than 40 in a second."""
INTERVAL = 300.0
"""Seconds, give or take a fifth, after which a pod is asked again: models are packed once there is room."""
_FIRST_RETRY = 10.0
_GROWTH = 3.0


class Inquiry:
    """Whom to ask, and what they said. Nobody ever waits for an answer: who needs one is told once it is there."""

    def __init__(self, pods: Pods, *, learnt: Callable[[Key], None], telemetry: Telemetry) -> None:
        """
        Args:
            pods: Who answers.
            learnt: Called with a service once what its pods said changes what is told of it.
            telemetry: Counts questions.
        """
        self._pods = pods
        self._learnt = learnt
        self._telemetry = telemetry
        self._followed: dict[Key, frozenset[Question]] = {}
        self._said: dict[Incarnation, str] = {}
        self._failures: Counter[Incarnation] = Counter()
        self._mentioned = False
        self._due: Queue[Question] = Queue(self._ask, workers=AT_ONCE)

    @property
    def said(self) -> Mapping[Incarnation, str]:
        """The tier that each said last; empty where it said none, or never answered."""
        return self._said

    def follow(self, service: Key, questions: Iterable[Question]) -> None:
        """Has these questions asked from now on, soon and then again and again, and no others about the service."""
        before, now = self._followed.pop(service, frozenset()), frozenset(questions)
        if now:
            self._followed[service] = now
        for gone in before - now:
            self._said.pop(gone.asked, None)
            self._failures.pop(gone.asked, None)
        for new in now - before:
            self._due.add(new)

    async def run(self) -> None:
        """Asks until cancelled."""
        await self._due.run()

    async def _ask(self, question: Question) -> float | None:
        """Asks once. Returns the seconds after which to ask again; None where nobody wants to know any more."""
        if not self._is_followed(question):
            return None
        answer = await self._answer(question)
        await asyncio.sleep(PAUSE)
        if not self._is_followed(question):
            return None
        known = self._said.get(question.asked)
        # Of one that does not answer, what it said last is the best there is.
        tier = (known or "") if answer is None else told(answer)
        if tier != known:
            self._said[question.asked] = tier
            if tier or known or self._has_named(question.service):
                self._learnt(question.service)
        return self._again(question, answered=answer is not None)

    async def _answer(self, question: Question) -> bytes | None:
        try:
            answer = await self._pods.statistics(question)
        except UnreachableError as error:
            self._telemetry.questions.labels("unreachable").inc()
            # Where a policy keeps the operator out, it does so for every pod: that is worth one line, not thousands.
            level = logging.DEBUG if self._mentioned else logging.INFO
            self._mentioned = True
            log.log(level, "a pod cannot be asked, so status.model.tiers does not count it: %s", error)
            return None
        self._telemetry.questions.labels("answered").inc()
        return answer

    def _again(self, question: Question, *, answered: bool) -> float:
        if answered:
            self._failures.pop(question.asked, None)
            delay = INTERVAL
        else:
            delay = min(_FIRST_RETRY * _GROWTH ** self._failures[question.asked], INTERVAL)
            self._failures[question.asked] = min(self._failures[question.asked] + 1, 9)
        return delay * _spread(question.asked)

    def _has_named(self, service: Key) -> bool:
        """Whether any pod of the service named a tier. If none did, one more that does not is no news."""
        return any(self._said.get(each.asked) for each in self._followed.get(service, ()))

    def _is_followed(self, question: Question) -> bool:
        return question in self._followed.get(question.service, ())


def _spread(asked: Incarnation) -> float:
    """From 0.8 to 1.2, always the same for a pod: those that came at the same time are not asked at the same time."""
    return 0.8 + 0.4 * (zlib.crc32(asked.uid.encode()) % 1000) / 1000
