"""URIs in the spec: where something is read from, and where it can be kept."""

import re

from openclaw_operator.api.base import Rule

URI_SCHEMES = ("s3", "gs", "az", "http", "https", "file")
"""What can be read."""
STORES = ("s3", "gs", "az", "file")
"""What can be written, too."""


def begins_with(schemes: tuple[str, ...]) -> str:
    """A pattern of URIs with one of the schemes."""
    return f"^({'|'.join(schemes)})://.+"


def has_scheme(uri: str, schemes: tuple[str, ...]) -> bool:
    """Whether the URI begins with one of the schemes, and names something behind it."""
    return re.match(begins_with(schemes), uri) is not None


def is_absolute(uri: str) -> bool:
    """Whether the path is a whole one if the URI is of a file; no other URI can be relative."""
    return not uri.startswith("file://") or uri.startswith("file:///")


def readable(field: str, example: str) -> tuple[Rule, ...]:
    """Rules for a field `uri` from which something is read.

    Args:
        field: Its Python name.
        example: The end of a URI as people write it, behind the bucket.
    """
    return (
        scheme_known(field, "uri", schemes=URI_SCHEMES, example=example),
        absolute(field, "uri", example=example),
    )


def scheme_known(field: str, alias: str, *, schemes: tuple[str, ...], example: str) -> Rule:
    """A rule that a URI has one of the schemes; an optional field may be left out."""
    return Rule(
        cel=f"!has(self.{alias}) || self.{alias}.matches('{begins_with(schemes)}')",
        message=(
            f"{alias} must begin with one of "
            + ", ".join(f"{scheme}://" for scheme in schemes)
            + f"; write for example s3://my-bucket/{example}"
        ),
        holds=lambda node: getattr(node, field) is None or has_scheme(getattr(node, field), schemes),
    )


def absolute(field: str, alias: str, *, example: str) -> Rule:
    """A rule that the URI of a file has a whole path."""
    return Rule(
        cel=f"!has(self.{alias}) || !self.{alias}.startsWith('file://') || self.{alias}.startsWith('file:///')",
        message=(
            f"{alias}: a file needs an absolute path, file:///models/{example}; "
            "file://./ is relative to the YAML and works in local mode only"
        ),
        holds=lambda node: getattr(node, field) is None or is_absolute(getattr(node, field)),
    )
