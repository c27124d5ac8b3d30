"""Writes the tables of the docs that follow from the code, between their markers.

python docs/reference.py            write
python docs/reference.py --check    fail if a page is out of date
"""

import argparse
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from openclaw_operator.config import PREFIX, Config
from openclaw_operator.telemetry import Telemetry

Schema = dict[str, Any]

DOCS = Path(__file__).parent
DEFINITION = DOCS.parent / "crds" / "openclaw.io_inferenceservices.yaml"

_REFUSED = " is not supported by this version of OpenClaw: "
_BOUNDS = (("minimum", "maximum", ""), ("minLength", "maxLength", " characters"))


def main() -> None:
    """Writes the pages, or checks them."""
    parser = argparse.ArgumentParser(description="Writes the tables of the docs that follow from the code.")
    parser.add_argument("--check", action="store_true", help="fail if a page is out of date")
    checking = parser.parse_args().check
    definition = yaml.safe_load(DEFINITION.read_text(encoding="utf-8"))
    pages = {"inferenceservice.md": definition_tables(definition), "operating.md": operator_tables()}
    for name, tables in pages.items():
        path = DOCS / name
        written = path.read_text(encoding="utf-8")
        wanted = filled(written, tables)
        if written != wanted and checking:
            raise SystemExit(f"{path} is out of date: run `make crds`")
        path.write_text(wanted, encoding="utf-8")


def filled(text: str, tables: Mapping[str, str]) -> str:
    """A page with what stands between the markers of each table replaced.

    Raises:
        ValueError: a marker is missing.
    """
    for name, table in tables.items():
        begin, end = f"<!-- begin {name} -->\n", f"<!-- end {name} -->"
        first, last = text.index(begin) + len(begin), text.index(end)
        text = f"{text[:first]}\n{table}\n{text[last:]}"
    return text


def definition_tables(definition: Schema) -> dict[str, str]:
    """What the CustomResourceDefinition says."""
    schema = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    spec, status = schema["properties"]["spec"], schema["properties"]["status"]
    return {
        "spec": _table(["Field", "Type", "Meaning"], fields("spec", spec)),
        "status": _table(["Field", "Type", "Meaning"], fields("status", status)),
        "rules": "".join(f"- {_literal(message)}\n" for message in sorted(set(rules(schema)))),
        "reserved": _table(["Field", "Instead"], reserved("spec", spec)),
    }


def operator_tables() -> dict[str, str]:
    """The operator's settings and metrics."""
    telemetry = Telemetry()
    telemetry.observe_queue(depth=lambda: 0, overdue=lambda: 0)
    settings = (
        (f"`{PREFIX}{name.upper()}`", _default(field.default), _literal(" ".join((field.description or "").split())))
        for name, field in Config.model_fields.items()
    )
    metrics = (
        (f"`{family.name}{'_total' if family.type == 'counter' else ''}`", family.type, _literal(family.documentation))
        for family in telemetry.registry.collect()
    )
    return {
        "settings": _table(["Variable", "Default", "Meaning"], settings),
        "operator metrics": _table(["Metric", "Type", "Meaning"], metrics),
    }


def _default(value: object) -> str:
    return f"`{value}`" if value not in ("", ()) else ""


def fields(path: str, schema: Schema) -> Iterator[tuple[str, ...]]:
    """Path, type and meaning of every field below `path` that is accepted."""
    refused = {row[0] for row in reserved(path, schema)}
    for name, child in schema.get("properties", {}).items():
        place = f"{path}.{name}"
        if f"`{place}`" in refused:
            continue
        mark = ", required" if name in schema.get("required", ()) else ""
        yield f"`{place}`", _type(child) + mark, _meaning(child)
        yield from fields(f"{place}[]" if "items" in child else place, child.get("items", child))


def reserved(path: str, schema: Schema) -> Iterator[tuple[str, ...]]:
    """Path of every reserved field below `path`, and what to write instead."""
    for rule in schema.get("x-kubernetes-validations", ()):
        name, refused, instead = rule["message"].partition(_REFUSED)
        if refused:
            yield f"`{path}.{name}`", _literal(instead)
    for name, child in schema.get("properties", {}).items():
        yield from reserved(f"{path}.{name}", child)


def rules(schema: Schema) -> Iterator[str]:
    """The sentence of every rule that is not about a reserved field."""
    for rule in schema.get("x-kubernetes-validations", ()):
        if _REFUSED not in rule["message"]:
            yield rule["message"]
    for child in (*schema.get("properties", {}).values(), *filter(None, [schema.get("items")])):
        yield from rules(child)


def _type(schema: Schema) -> str:
    if "enum" in schema:
        return " or ".join(f"`{value}`" for value in schema["enum"])
    if "pattern" in schema and schema.get("x-kubernetes-int-or-string"):
        return "quantity"
    if schema.get("x-kubernetes-int-or-string"):
        return "integer or percentage"
    if "additionalProperties" in schema:
        return f"map of {schema['additionalProperties'].get('type', 'quantity')}s".replace("ys", "ies")
    if "items" in schema:
        return f"list of {schema['items']['type']}s"
    bounds = _bounds(schema)
    return f"{schema['type']}, {bounds}" if bounds else str(schema["type"])


def _bounds(schema: Schema) -> str:
    for low, high, unit in _BOUNDS:
        if high in schema and "pattern" not in schema:
            return f"{schema[low]} to {schema[high]}{unit}" if schema.get(low) else f"up to {schema[high]}{unit}"
    return ""


def _meaning(schema: Schema) -> str:
    text = _literal(" ".join(schema.get("description", "").split()))
    default = schema.get("default")
    if default not in (None, "") and "Default:" not in text:
        text += f" Default: {str(default).lower() if isinstance(default, bool) else default}."
    return text


def _literal(text: str) -> str:
    """The text as Markdown that shows it as it is, also inside a table."""
    for character in "*<|":
        text = text.replace(character, f"\\{character}")
    return text


def _table(head: list[str], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    main()
