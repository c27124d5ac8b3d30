"""What `openclaw serve` does before its first answer, one thing after the other; prints the seconds of each as JSON.

Arguments: time.monotonic() just before this process was made (the clock is the system's), the model, threads.
"""

import time

ENTERED = time.monotonic()

import itertools  # noqa: E402  # the clock is read before anything is imported
import json  # noqa: E402
import sys  # noqa: E402
from pathlib import Path  # noqa: E402

import openclaw.cli  # noqa: E402, F401  # imported for its time
import openclaw.serving.process  # noqa: E402, F401
from openclaw.execute.session import Model  # noqa: E402
from openclaw.serving.warmup import warm_up  # noqa: E402


def main() -> None:
    """Prints interpreter, imports, session, warm-up."""
    imported = time.monotonic()
    began, path, threads = sys.argv[1:]
    model = Model.from_file(Path(path), threads=int(threads))
    loaded = time.monotonic()
    warm_up(model, 1)
    marks = [float(began), ENTERED, imported, loaded, time.monotonic()]
    print(json.dumps([after - before for before, after in itertools.pairwise(marks)]))


if __name__ == "__main__":
    main()
