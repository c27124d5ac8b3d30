"""JSON schemas of Kubernetes' kinds and of ours, for kubeconform, made without any download but Go's own.

    python charts/openclaw/ci/schemas.py FOLDER

Kubernetes' come from the OpenAPI documents in the Go module that the test cluster is built from, so that the
chart is checked against the version that the tests run; ours come from `crds/`. A field that a kind does not
have is refused, as the API server does with strict field validation.
"""

import argparse
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

Schema = dict[str, Any]

REPOSITORY = Path(__file__).resolve().parents[3]
GO_MODULE = REPOSITORY / "tools/kubernetes/modules/kubernetes"
REFERENCE = "#/components/schemas/"
METADATA = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, help="where to write one file per kind and version")
    folder: Path = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    components = _components()
    kinds = [*_builtin(components), *_custom(components)]
    for name, schema in kinds:
        (folder / f"{name}.json").write_text(json.dumps(schema))
    print(f"{len(kinds)} schemas in {folder}")


def _components() -> dict[str, Schema]:
    """Every schema of every group of Kubernetes, by its OpenAPI name."""
    listed = subprocess.run(
        ["go", "mod", "download", "-json", "k8s.io/kubernetes"],
        cwd=GO_MODULE,
        check=True,
        capture_output=True,
        text=True,
        timeout=600,
    )
    documents = Path(json.loads(listed.stdout)["Dir"]) / "api/openapi-spec/v3"
    found: dict[str, Schema] = {}
    for document in sorted(documents.glob("*.json")):
        found |= json.loads(document.read_text()).get("components", {}).get("schemas", {})
    return found


def _builtin(components: dict[str, Schema]) -> Iterator[tuple[str, Schema]]:
    for name, schema in components.items():
        kinds = schema.get("x-kubernetes-group-version-kind", [])
        # What belongs to many groups at once, such as DeleteOptions, is no kind that anybody applies.
        if len(kinds) == 1:
            yield _file_name(**kinds[0]), _document({"$ref": REFERENCE + name}, components)


def _custom(components: dict[str, Schema]) -> Iterator[tuple[str, Schema]]:
    for path in sorted((REPOSITORY / "crds").glob("*.yaml")):
        spec = yaml.safe_load(path.read_text())["spec"]
        for version in spec["versions"]:
            schema = version["schema"]["openAPIV3Schema"]
            schema["properties"] |= {
                "apiVersion": {"const": f"{spec['group']}/{version['name']}"},
                "kind": {"const": spec["names"]["kind"]},
                "metadata": {"$ref": REFERENCE + METADATA},
            }
            name = _file_name(group=spec["group"], version=version["name"], kind=spec["names"]["kind"])
            yield name, _document(schema, components)


def _file_name(*, group: str, version: str, kind: str) -> str:
    """As kubeconform's `{{.ResourceKind}}{{.KindSuffix}}` has it: the group by its first label alone."""
    return "-".join(part for part in (kind.lower(), group.partition(".")[0], version) if part)


def _document(root: Schema, components: dict[str, Schema]) -> Schema:
    """`root` with all that it refers to, and nothing else."""
    wanted, found = list(_references(root)), dict[str, Schema]()
    while wanted:
        name = wanted.pop()
        if name not in found:
            found[name] = components[name]
            wanted.extend(_references(components[name]))
    return {**_strict(root), "components": {"schemas": {name: _strict(schema) for name, schema in found.items()}}}


def _references(node: object) -> Iterator[str]:
    if isinstance(node, dict):
        # JSONSchemaProps has a property of the name `$ref`: only a string is a reference.
        if isinstance(target := node.get("$ref"), str):
            yield target.removeprefix(REFERENCE)
        for value in node.values():
            yield from _references(value)
    elif isinstance(node, list):
        for value in node:
            yield from _references(value)


def _strict(node: Any) -> Any:
    """The schema with unknown fields refused, and Kubernetes' extensions put in JSON Schema's words."""
    if isinstance(node, list):
        return [_strict(value) for value in node]
    if not isinstance(node, dict):
        return node
    if node.get("x-kubernetes-int-or-string") is True:
        return {"type": ["integer", "string"]}
    strict = {key: _strict(value) for key, value in node.items()}
    is_open = "additionalProperties" in node or node.get("x-kubernetes-preserve-unknown-fields") is True
    if isinstance(node.get("properties"), dict) and node.get("type") == "object" and not is_open:
        strict["additionalProperties"] = False
    return strict


if __name__ == "__main__":
    main()
