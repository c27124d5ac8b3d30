"""English sentences that every machine with this environment has: no download, no licence of its own.

The reference of the Python language, which CPython carries for its `help()`, and the descriptions of scikit-learn's
data sets. Calibration and held-out sentences never share a section of the one or a page of the other.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.resources import files

_LEAST, _MOST = 30, 300  # characters
_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z])")
_PLAIN = re.compile(r"^[A-Z][A-Za-z0-9 ,;:'\"()\-/.!?]+[.!?]$")
_ROLES = re.compile(r":\w+:`|``|[`*_]|\s+<[^>]*>")


def split() -> tuple[list[str], list[str]]:
    """Sentences for calibration, and held-out ones; each once, in the same order every time."""
    calibration: dict[str, None] = {}
    held_out: dict[str, None] = {}
    for number, text in enumerate(_texts()):
        into = calibration if number % 2 else held_out
        into.update(dict.fromkeys(_sentences(text)))
    return list(calibration), [each for each in held_out if each not in calibration]


def _texts() -> Iterator[str]:
    from pydoc_data.topics import topics

    folder = files("sklearn.datasets.descr")
    for page in sorted(folder.iterdir(), key=lambda each: each.name):
        if page.name.endswith(".rst"):
            yield page.read_text(encoding="utf-8")
    for _, text in sorted(topics.items()):
        yield text


def _sentences(text: str) -> Iterator[str]:
    """Whole sentences of running text; tables, code and lists are passed over."""
    for paragraph in re.split(r"\n\s*\n", text):
        if paragraph.startswith((" ", "..", "*", "-", ":", "=", "|")) or "::" in paragraph:
            continue
        for sentence in _END.split(" ".join(_ROLES.sub("", paragraph).split())):
            if _LEAST <= len(sentence) <= _MOST and _PLAIN.match(sentence):
                yield sentence
