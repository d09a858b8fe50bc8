"""Six families of four species each, which differ only in proportions, counts and texture, as in fine-grained
recognition."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from benchmark.toyland.shapes import Polygon, Shape, bar, box, disc, dome, normalised, petals, poly


def _fish(length: float, height: float, tail: float, fin: float) -> Sequence[Polygon]:
    return (
        poly(-0.3, length - 0.12, 0.3, length + 0.2, 0.3 + tail, length + 0.12, 0.3, length + 0.2, 0.3 - tail),
        poly(-0.6, 0.3 * length, 0.3 + 0.7 * height, 0.5 * length, 0.3 + height + fin, 0.75 * length, 0.3),
        disc(0, length / 2, 0.3, length / 2, height),
        poly(-0.5, 0.45 * length, 0.3, 0.66 * length, 0.3 - 0.6 * height, 0.6 * length, 0.3),
        disc(0.9, 0.16 * length, 0.3 + 0.3 * height, 0.05),
        disc(-0.9, 0.16 * length, 0.3 + 0.3 * height, 0.022),
    )


def _bird(legs: float, neck: float, beak: float, tail: float) -> Sequence[Polygon]:
    head = legs + 0.42 + neck
    return (
        bar(-0.9, 0.42, legs + 0.1, 0.4, 0, 0.035),
        bar(-0.9, 0.52, legs + 0.1, 0.54, 0, 0.035),
        poly(-0.3, 0.26, legs + 0.25, 0.1 - tail, legs + 0.3, 0.12 - tail, legs + 0.15, 0.26, legs + 0.12),
        poly(0.1, 0.56, legs + 0.2, 0.68, head, 0.8, head, 0.74, legs + 0.16),
        disc(0, 0.46, legs + 0.2, 0.29, 0.18),
        disc(0.2, 0.76, head, 0.12),
        poly(0.8, 0.85, head + 0.05, 0.88 + beak, head - 0.03, 0.85, head - 0.06),
        poly(-0.6, 0.28, legs + 0.27, 0.6, legs + 0.28, 0.34, legs + 0.05),
        disc(-0.9, 0.79, head + 0.03, 0.028),
    )


def _flower(count: float, length: float, width: float, heart: float) -> Sequence[Polygon]:
    return (
        bar(-0.6, 0.5, 0, 0.5, 0.6, 0.05),
        poly(-0.5, 0.5, 0.08, 0.28, 0.3, 0.2, 0.2),
        poly(-0.5, 0.5, 0.14, 0.72, 0.34, 0.8, 0.24),
        *petals(0.2, 0.5, 0.7, int(count), length, width),
        disc(-0.8, 0.5, 0.7, heart),
    )


def _mushroom(cap_width: float, cap_height: float, stem_width: float, spots: float) -> Sequence[Polygon]:
    across = np.linspace(-0.6, 0.6, int(spots)) * cap_width
    return (
        poly(0.6, 0.5 - stem_width, 0, 0.5 - 0.7 * stem_width, 0.5, 0.5 + 0.7 * stem_width, 0.5, 0.5 + stem_width, 0),
        box(0.3, 0.5 - 1.3 * stem_width, 0.3, 0.5 + 1.3 * stem_width, 0.34),
        dome(-0.1, 0.5, 0.45, cap_width, cap_height),
        *(disc(0.9, 0.5 + float(x), 0.45 + 0.4 * cap_height, 0.05) for x in across),
    )


def _butterfly(upper: float, lower: float, spread: float, tail: float) -> Sequence[Polygon]:
    wings = []
    for side in (-1.0, 1.0):
        x = 0.5 + side * spread
        wings.append(poly(-0.3, 0.5, 0.5, 0.5 + side * spread * 0.8, 0.45, x, 0.45 - lower, 0.5, 0.3))
        wings.append(poly(-0.3, 0.5 + side * spread * 0.5, 0.4, x, 0.45 - lower - tail, x - side * 0.12, 0.4 - lower))
        wings.append(poly(0, 0.5, 0.45, 0.5 + side * spread * 0.9, 0.45, x + side * 0.05, 0.5 + upper, 0.5, 0.62))
        wings.append(disc(0.8, 0.5 + side * spread * 0.7, 0.5 + upper * 0.45, 0.055))
        wings.append(bar(-0.9, 0.5, 0.68, 0.5 + side * 0.14, 0.86, 0.025))
    return (*wings, disc(-0.9, 0.5, 0.45, 0.045, 0.24))


def _tree(levels: float, width: float, taper: float, trunk: float) -> Sequence[Polygon]:
    crown = []
    for level in range(int(levels)):
        half = width * taper**level
        low = trunk + 0.7 * level / levels
        crown.append(poly(0.2 - 0.2 * (level % 2), 0.5 - half, low, 0.5, low + 1.3 / levels, 0.5 + half, low))
    return (box(-0.7, 0.45, 0, 0.55, trunk + 0.1), *crown)


_FAMILIES: dict[str, tuple[Callable[..., Sequence[Polygon]], tuple[tuple[str, str, tuple[float, ...]], ...]]] = {
    # supercategory: (builder, ((species, texture, the builder's proportions), …))
    "Actinopterygii": (
        _fish,
        (
            ("Piscis longus", "stripes_wide", (1.0, 0.14, 0.16, 0.1)),
            ("Piscis altus", "stripes_wide", (0.72, 0.3, 0.16, 0.12)),
            ("Piscis velifer", "dots_fine", (0.85, 0.2, 0.14, 0.3)),
            ("Piscis caudatus", "dots_fine", (0.8, 0.2, 0.32, 0.06)),
        ),
    ),
    "Aves": (
        _bird,
        (
            ("Avis parva", "dots_fine", (0.12, 0.0, 0.1, 0.12)),
            ("Avis palustris", "dots_fine", (0.5, 0.22, 0.2, 0.02)),
            ("Avis rostrata", "checks_fine", (0.2, 0.02, 0.42, 0.1)),
            ("Avis caudata", "checks_fine", (0.2, 0.04, 0.12, 0.42)),
        ),
    ),
    "Fungi": (
        _mushroom,
        (
            ("Boletus latus", "stripes_fine", (0.52, 0.26, 0.12, 3)),
            ("Boletus crassus", "stripes_fine", (0.4, 0.4, 0.24, 2)),
            ("Boletus gracilis", "checks_wide", (0.24, 0.44, 0.07, 2)),
            ("Boletus punctatus", "checks_wide", (0.46, 0.46, 0.14, 5)),
        ),
    ),
    "Insecta": (
        _butterfly,
        (
            ("Papilio magnus", "checks_wide", (0.42, 0.3, 0.48, 0.02)),
            ("Papilio caudatus", "checks_wide", (0.34, 0.22, 0.4, 0.28)),
            ("Papilio angustus", "stripes_fine", (0.5, 0.18, 0.26, 0.02)),
            ("Papilio humilis", "stripes_fine", (0.18, 0.34, 0.5, 0.02)),
        ),
    ),
    "Pinopsida": (
        _tree,
        (
            ("Pinus bina", "stripes_fine", (2, 0.42, 0.8, 0.22)),
            ("Pinus quaterna", "stripes_fine", (4, 0.4, 0.75, 0.16)),
            ("Pinus columna", "dots_wide", (3, 0.2, 0.95, 0.12)),
            ("Pinus parasol", "dots_wide", (2, 0.46, 0.9, 0.5)),
        ),
    ),
    "Plantae": (
        _flower,
        (
            ("Flos quinarius", "checks_fine", (5, 0.28, 0.13, 0.09)),
            ("Flos radiatus", "checks_fine", (12, 0.32, 0.045, 0.1)),
            ("Flos trinus", "stripes_wide", (3, 0.34, 0.15, 0.06)),
            ("Flos solaris", "stripes_wide", (10, 0.26, 0.07, 0.18)),
        ),
    ),
}

# (supercategory, shape) of every category, in the order of the category ids.
SPECIES: tuple[tuple[str, Shape], ...] = tuple(
    (family, normalised(name, build(*proportions), texture))
    for family, (build, members) in _FAMILIES.items()
    for name, texture, proportions in members
)
