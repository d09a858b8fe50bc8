"""Recipes as data: what one is, how it changes with the scale, and where all of them are found.

Everything that a recipe file needs is here under one name; the harness imports from the modules themselves.
"""

from benchmark.core.optimisation import (
    LARS,
    SGD,
    Adam,
    Constant,
    Cosine,
    Epochs,
    Milestones,
    Part,
    RMSprop,
    Steps,
    Warmup,
    WarmupCosine,
)
from benchmark.recipe.contract import Architecture, Change, Recipe, Settings
from benchmark.recipe.inputs import BGR, RGB, Grey, InputSpec, Lab, Lightness, Sobel
from benchmark.recipe.pools import Assigned, Balanced, Given, Pool, Shuffled
from benchmark.recipe.scales import (
    DESK,
    DESK_NETWORK,
    DESK_RESNET,
    DESK_SIZE,
    DRAWN_CROPS,
    DRAWN_YFCC,
    UNNORMALISED,
    without,
)

__all__ = [
    "BGR",
    "DESK",
    "DESK_NETWORK",
    "DESK_RESNET",
    "DESK_SIZE",
    "DRAWN_CROPS",
    "DRAWN_YFCC",
    "LARS",
    "RGB",
    "SGD",
    "UNNORMALISED",
    "Adam",
    "Architecture",
    "Assigned",
    "Balanced",
    "Change",
    "Constant",
    "Cosine",
    "Epochs",
    "Given",
    "Grey",
    "InputSpec",
    "Lab",
    "Lightness",
    "Milestones",
    "Part",
    "Pool",
    "RMSprop",
    "Recipe",
    "Settings",
    "Shuffled",
    "Sobel",
    "Steps",
    "Warmup",
    "WarmupCosine",
    "without",
]
