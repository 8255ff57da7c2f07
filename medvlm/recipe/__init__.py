"""Typed recipes: what they may hold, how they are read, and how they are resolved beside a run."""

from medvlm.recipe.load import load_recipe
from medvlm.recipe.members import Members, load_members
from medvlm.recipe.models import Recipe

__all__ = ["Members", "Recipe", "load_members", "load_recipe"]
