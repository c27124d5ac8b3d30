"""Which recipes are tried, and why others are not."""

from __future__ import annotations

from collections.abc import Sequence

from openclaw.errors import ConfigInvalid
from openclaw.execute.engines import OWN
from openclaw.graph.passes import LOSSLESS
from openclaw.optimizer.lossless import passes_recipe
from openclaw.optimizer.recipe import Recipe

NO_DATA = (
    "No calibration data was given, so nothing of lower precision was tried: its loss of accuracy could not be seen. "
    "Data (calibration, --calibration) opens int8, int4 and bf16 where this machine has them."
)

_JOINING = frozenset({"conv-siblings", "matmul-siblings"})


def all_recipes() -> tuple[Recipe, ...]:
    """Every recipe: those that cost no accuracy first."""
    return (*lossless_recipes(), *_lower())


def _lower() -> tuple[Recipe, ...]:
    # Only when it is needed: quantization alone takes a second to import.
    from openclaw.optimizer.precision import RECIPES

    return RECIPES


def lossless_recipes() -> tuple[Recipe, ...]:
    """The passes that never slow a model down; and with these those that may, which only timing can choose.

    Those that join what reads the same are apart from the others: they would undo what these take apart.
    """
    joining = [one.name for one in LOSSLESS if one.speculative and one.name in _JOINING]
    others = [one.name for one in LOSSLESS if one.speculative and one.name not in _JOINING]
    return (
        passes_recipe("fp32-passes"),
        passes_recipe("fp32-passes-siblings", joining),
        passes_recipe("fp32-passes-speculative", others),
    )


def wanted(
    recipes: Sequence[Recipe], precision: str, only: Sequence[str], *, engines: Sequence[str] = ()
) -> list[Recipe]:
    """The recipes that a user wants tried.

    Args:
        recipes: all there are.
        precision: theirs, beside fp32; ``auto``: any.
        only: their names; none: all.
        engines: beside onnxruntime's own kernels; none: all.

    Raises:
        ConfigInvalid: there is no recipe of such a name.
    """
    names = {one.name for one in recipes}
    for name in only:
        if name not in names:
            raise ConfigInvalid(f"only: there is no recipe {name!r}; there are {', '.join(sorted(names))}")
    return [
        one
        for one in recipes
        if (not only or one.name in only)
        and (precision == "auto" or one.precision in ("fp32", precision))
        and (not engines or one.engine in (OWN, *engines))
    ]


def unseen(recipe: Recipe, *, has_data: bool, asked: bool) -> str | None:
    """Why a recipe is not tried for want of data, or None.

    Args:
        recipe: of any precision.
        has_data: whether the user gave calibration data.
        asked: whether the user asked for a lower precision, or stated a budget, and so takes the judgement of random
            inputs.
    """
    if recipe.precision == "fp32" or has_data:
        return None
    if recipe.needs_calibration:
        return "it needs calibration data, and none was given"
    if not asked:
        return "without calibration data its loss of accuracy could not be seen"
    return None
