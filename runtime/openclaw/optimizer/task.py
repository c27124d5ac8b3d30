"""What there is to optimize: everything that decides what comes out, and so the name under which a result is shared."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from openclaw.optimizer.model.source import Source
from openclaw.optimizer.options import Options
from openclaw.optimizer.results.report import Machine
from openclaw.optimizer.surroundings import read_gpus, read_versions

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Task:
    """One optimization, to be done here or found where another did it.

    Attributes:
        source: the model.
        options: what is asked for.
        machine: where it is measured.
        versions: of everything that makes and runs its forms.
        gpus: that its forms may run on, by name.
    """

    source: Source
    options: Options
    machine: Machine
    versions: Mapping[str, str] = field(default_factory=read_versions)
    gpus: Sequence[str] = field(default_factory=read_gpus)

    def key(self) -> str | None:
        """The name of the result; None if it cannot be told. Raises ConfigInvalid as :meth:`Options.identity`."""
        asked = self.options.identity()
        if asked is None:
            log.info("the cache is not used: the source code of the metric cannot be read")
            return None
        # The processor's name, too: two with the same instructions need not be as fast in them.
        machine = self.machine
        where = {
            "processor": machine.processor,
            "instructions": machine.instructions,
            "threads": machine.threads,
            "gpus": list(self.gpus),
        }
        document = {"model": self.source.digest, "options": asked, "machine": where, "versions": dict(self.versions)}
        return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()
