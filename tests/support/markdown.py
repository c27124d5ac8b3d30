"""The pages of the documentation, their examples and their links."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]

_FENCE = re.compile(r"^```(?P<info>[^\n`]*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\((?P<target>[^)\s]+)\)")
_CODE = re.compile(r"`(?P<text>[^`\n]+)`")
_HEADING = re.compile(r"^#+ (?P<text>.+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block: its page and line, its language, what else stands behind the fence, and its text."""

    page: Path
    line: int
    language: str
    flags: tuple[str, ...]
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(REPOSITORY)}:{self.line}"


def pages() -> list[Path]:
    """Every page that users read."""
    folders = ("docs", "examples", "tools")
    found = [*REPOSITORY.glob("*.md"), *(page for folder in folders for page in (REPOSITORY / folder).rglob("*.md"))]
    assert len(found) > 8, "the documentation was not found"
    return sorted(page for page in found if "build" not in page.parts)


def blocks(*languages: str) -> list[Block]:
    """Every fenced block in one of the languages, or in any."""
    return [block for page in pages() for block in _blocks(page) if not languages or block.language in languages]


def _blocks(page: Path) -> Iterator[Block]:
    text = page.read_text(encoding="utf-8")
    for match in _FENCE.finditer(text):
        language, *flags = match["info"].split() or [""]
        yield Block(page, text.count("\n", 0, match.start()) + 1, language, tuple(flags), match["text"])


def prose(page: Path) -> str:
    """The text of a page without its fenced blocks."""
    return _FENCE.sub("", page.read_text(encoding="utf-8"))


def links(page: Path) -> list[str]:
    """Targets of the links and images of a page."""
    return [match["target"] for match in _LINK.finditer(prose(page))]


def code(page: Path) -> list[str]:
    """What stands in backticks in the prose of a page."""
    return [match["text"] for match in _CODE.finditer(prose(page))]


def anchors(page: Path) -> set[str]:
    """Anchors of a page's headings, as GitHub makes them."""
    headings = (match["text"].lower() for match in _HEADING.finditer(prose(page)))
    return {re.sub(r"[^\w\- ]", "", heading).replace(" ", "-") for heading in headings}
