"""The ways to lower precision, each a recipe."""

from openclaw.optimizer.precision import bfloat16, matrices, static, weights
from openclaw.optimizer.recipe import Recipe

RECIPES: tuple[Recipe, ...] = (*static.RECIPES, *matrices.RECIPES, *weights.RECIPES, *bfloat16.RECIPES)
"""All of them, in the order in which they are tried."""
