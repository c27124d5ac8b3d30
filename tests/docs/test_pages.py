"""What the pages refer to exists, and what users meet is explained."""

import ast
import re
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from openclaw.errors import STARTUP_ERRORS
from support.markdown import REPOSITORY, anchors, code, links, pages, prose

OPERATOR = REPOSITORY / "operator" / "openclaw_operator"
TOP = ("operator/", "runtime/", "crds/", "charts/", "images/", "examples/", "tests/", "e2e/", "benchmarks/", "docs/")
MADE = re.compile(r"^(docs|examples)/.*\bbuild/|^benchmarks/results/|<|\bNAME\b|\bKIND\b")


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in links(page):
        if target.startswith("https://"):
            continue
        file, _, anchor = target.partition("#")
        linked = (page.parent / file).resolve() if file else page
        assert linked.exists(), f"there is no {target}"
        if anchor:
            assert anchor in anchors(linked), f"{file or page.name} has no heading #{anchor}"


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_paths_of_this_repository_exist(page: Path) -> None:
    for path in code(page):
        if path.startswith((*TOP, "tools/", ".ci/")) and " " not in path and not MADE.search(path):
            assert path.rstrip("/") in kept(), f"there is no {path}"


@cache
def kept() -> set[str]:
    """Files and folders that a fresh clone has; what a build or a benchmark left in this one is not among them."""
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    files = [Path(line) for line in listing.stdout.splitlines()]
    return {str(path) for file in files for path in (file, *file.parents)}


def test_every_page_of_the_docs_is_in_the_index() -> None:
    index = REPOSITORY / "docs" / "index.md"
    linked = {(index.parent / target.partition("#")[0]).resolve() for target in links(index)}
    assert {page for page in pages() if page.parent == index.parent} - {index} <= linked


def reasons() -> set[str]:
    """Every reason that the operator or the server gives to a condition."""
    found = set(STARTUP_ERRORS)
    for file in OPERATOR.rglob("*.py"):
        found |= set(_reasons(ast.parse(file.read_text(encoding="utf-8")), progress=file.name == "status.py"))
    return found


def _reasons(tree: ast.Module, *, progress: bool) -> Iterator[str]:
    """First arguments of Problem and Terminal, third of Aspect; in status.py also first items of returned tuples."""
    places = {"Problem": 0, "Terminal": 0, "Aspect": 2}
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and len(node.args) > places.get(node.func.id, 9)
        ):
            said = node.args[places[node.func.id]]
        elif progress and isinstance(node, ast.Return) and isinstance(node.value, ast.Tuple):
            said = node.value.elts[0]
        else:
            continue
        if isinstance(said, ast.Constant) and isinstance(said.value, str):
            yield said.value


def test_every_reason_is_explained_and_no_other() -> None:
    known = reasons()
    assert {"InferenceAnswered", "RollingOut", "PodsStarting", "Unschedulable", "InvalidSpec", "Rejected"} <= known
    page = (REPOSITORY / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    explained = set(re.findall(r"^\| `([A-Za-z]+)` \|", page, re.MULTILINE)) - {"Ready", "Available", "Progressing"}
    explained -= {"ModelLoaded"}
    assert explained == known


def test_every_metric_that_is_mentioned_exists() -> None:
    source = "".join(
        file.read_text(encoding="utf-8")
        for root in ("operator", "runtime")
        for file in (REPOSITORY / root).rglob("*.py")
    )
    mentioned = {
        (page.name, name) for page in pages() for name in re.findall(r"\bopenclaw_(?!operator\b)\w+", prose(page))
    }
    assert len(mentioned) > 5
    for page, name in mentioned:
        assert re.search(rf'"{name.removesuffix("_total")}(_total)?"', source), f"{page}: there is no metric {name}"
