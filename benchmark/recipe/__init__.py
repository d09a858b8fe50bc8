"""Recipes as data: what one is, how it changes with the scale, and where all of them are found.

Everything that a recipe file needs is here under one name; the harness imports from the modules themselves.
"""

from benchmark.core.optimisation import SGD, Adam, Constant, Cosine, Epochs, Milestones, Steps, Warmup
from benchmark.recipe.contract import Architecture, Change, Recipe, Settings

__all__ = [
    "SGD",
    "Adam",
    "Architecture",
    "Change",
    "Constant",
    "Cosine",
    "Epochs",
    "Milestones",
    "Recipe",
    "Settings",
    "Steps",
    "Warmup",
]
