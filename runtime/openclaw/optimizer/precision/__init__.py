"""The ways to lower precision, each a recipe."""

from openclaw.optimizer.precision import matrices, static
from openclaw.optimizer.recipe import Recipe

RECIPES: tuple[Recipe, ...] = (*static.RECIPES, *matrices.RECIPES)
"""All of them, in the order in which they are tried."""
