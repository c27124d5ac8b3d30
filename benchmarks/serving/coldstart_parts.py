"""What `openclaw serve` does before its first answer, one thing after the other; prints the seconds of each as JSON.

Arguments: time.monotonic() just before this process was made (the clock is the system's), the model, threads, and the
modules that the server imports.
"""

import time

ENTERED = time.monotonic()

import importlib  # noqa: E402  # the clock is read before anything is imported
import itertools  # noqa: E402
import json  # noqa: E402
import sys  # noqa: E402
from pathlib import Path  # noqa: E402

BEGAN, PATH, THREADS, *MODULES = sys.argv[1:]
for module in MODULES:
    importlib.import_module(module)

from openclaw.execute.session import Model  # noqa: E402
from openclaw.serving.warmup import warm_up  # noqa: E402


def main() -> None:
    """Prints interpreter, imports, session, warm-up."""
    imported = time.monotonic()
    model = Model.from_file(Path(PATH), threads=int(THREADS))
    loaded = time.monotonic()
    warm_up(model, 1)
    marks = [float(BEGAN), ENTERED, imported, loaded, time.monotonic()]
    print(json.dumps([after - before for before, after in itertools.pairwise(marks)]))


if __name__ == "__main__":
    main()
