"""Writes the tables of inferenceservice.md from the CustomResourceDefinition, between their markers.

python docs/reference.py            write
python docs/reference.py --check    fail if the page is out of date
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

Schema = dict[str, Any]

DOCS = Path(__file__).parent
PAGE = DOCS / "inferenceservice.md"
DEFINITION = DOCS.parent / "crds" / "openclaw.io_inferenceservices.yaml"

_REFUSED = " is not supported by this version of OpenClaw: "
_BOUNDS = (("minimum", "maximum", ""), ("minLength", "maxLength", " characters"))


def main() -> None:
    """Writes the page, or checks it."""
    parser = argparse.ArgumentParser(description="Writes the tables of inferenceservice.md from the CRD.")
    parser.add_argument("--check", action="store_true", help="fail if the page is out of date")
    checking = parser.parse_args().check
    written = PAGE.read_text(encoding="utf-8")
    wanted = page(written, yaml.safe_load(DEFINITION.read_text(encoding="utf-8")))
    if checking and written != wanted:
        raise SystemExit(f"{PAGE} is out of date: run `make crds`")
    if written != wanted:
        PAGE.write_text(wanted, encoding="utf-8")


def page(text: str, definition: Schema) -> str:
    """The page with the content between its markers replaced by what the definition says."""
    schema = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    spec, status = schema["properties"]["spec"], schema["properties"]["status"]
    sections = {
        "spec": _table(["Field", "Type", "Meaning"], fields("spec", spec)),
        "status": _table(["Field", "Type", "Meaning"], fields("status", status)),
        "rules": "\n".join(f"- {_literal(message)}" for message in sorted(set(rules(schema)))) + "\n",
        "reserved": _table(["Field", "Instead"], reserved("spec", spec)),
    }
    for name, content in sections.items():
        begin, end = f"<!-- begin {name} -->\n", f"<!-- end {name} -->"
        before, _, rest = text.partition(begin)
        text = f"{before}{begin}\n{content}\n{end}{rest.partition(end)[2]}"
    return text


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


def _table(head: list[str], rows: Iterator[tuple[str, ...]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    main()
