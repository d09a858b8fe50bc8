"""Who is built how: the plan of every figure, row by row, # a brick and . none.

All plans have eight bricks. Those that share a kind of brick show the same windows of two by two cells equally often,
so that they look alike in small patches; of their windows of two by three, at most 36 % differ. No two of a set share
more than five bricks, however they are moved or mirrored; ImageNet's that share a kind of brick share four at most; and
no figure of another set shares more than six with one of ImageNet's. tests/test_toyland_shortcuts.py holds them to it.
"""

from __future__ import annotations

IMAGENET_PLANS = {
    "truck": "#.... #.#.. .#.#. #..##",
    "house": "#.... .#... #.#.. ..#.# ...##",
    "castle": ".#... #.... .#..# .##.# ...#.",
    "giraffe": ".#... .#... #...# .#.#. ..##.",
    "rocket": "..#.. #.##. .#..# #.... #....",
    "cup": "##... ..#.# .#.#. ....# ....#",
    "lamp": "##... ..#.. #.#.. .#.#. ....#",
    "snowman": "#... #.## .#.. ..#. .#.#",
    "windmill": ".##.. #.... .#... .#.#. ..#.#",
    "umbrella": ".#... #.#.. #..## ..#.. ...#.",
    "guitar": "##.# ..## ..#. .#.. ..#.",
    "anchor": "#.#.. ##... ..#.. ...## ...#.",
    "lighthouse": "#.#. .##. ...# .##. ..#.",
    "teapot": "#.... .##.# #.##. #....",
    "helicopter": ".#.. ..## ...# #.#. .##.",
    "robot": "##... #.##. ....# ...#. ....#",
    "clock": "##... #.... .#... #.#.. ...##",
    "turtle": "##... ..#.. ...## ..#.# .#...",
    "elephant": ".##. #.#. ...# .##. #...",
    "scissors": ".##.. #..## .#..# ..#..",
}

VOC_PLANS = {
    "aeroplane": "#.... ##.## #.#.. ...#.",
    "bicycle": "#.... .##.# ...## ..#.#",
    "bird": "##.# ..#. .##. .#.#",
    "boat": "##.#. ..#.. ..##. ..#.#",
    "bottle": "#.... .#.## .##.# #....",
    "bus": "#.##. .#.#. ....# ...##",
    "car": "##... #.#.# ...#. ...##",
    "cat": "#.#.. ##... ..##. ..#.#",
    "chair": "##... #.... ##.#. ..#.#",
    "cow": "##... .#... ..#.# .#.##",
    "diningtable": ".#.#. ##..# ..##. ...#.",
    "dog": "#.#.. .##.. #..## ...#.",
    "horse": "##..# .#.#. ..##. .#...",
    "motorbike": ".#... ..##. .#.#. ##..#",
    "person": "#.... .#.## ##.#. ..#..",
    "pottedplant": ".#... ..#.. #.### .#..#",
    "sheep": "#..#. ###.. ..#.# ...#.",
    "sofa": "#..#. .###. #..#. ....#",
    "train": ".#... #...# #.##. .##..",
    "tvmonitor": "..#.. ##.#. .#..# ##...",
}

# supercategory: species
SPECIES_PLANS = {
    "Actinopterygii": {
        "Piscis longus": "#.#.. .#.#. ...#. ....# ..##.",
        "Piscis altus": "#.#.. .#... #.#.. #..##",
        "Piscis velifer": "#..#. .##.# #.... #.... .#...",
        "Piscis caudatus": "#.... #.... .#..# #..#. .##..",
    },
    "Aves": {
        "Avis parva": "#.... .#.#. ..#.# ..#.. ...##",
        "Avis palustris": ".#.. #..# .#.# ..#. ##..",
        "Avis rostrata": ".#... #...# .##.# ...#. ....#",
        "Avis caudata": "..#.. .#... #.... #.#.. .#.##",
    },
    "Fungi": {
        "Boletus latus": "##... #.... #.... .#..# ..##.",
        "Boletus crassus": "##.. #... .##. #..# ...#",
        "Boletus gracilis": "##.. .#.. #... #.## .#..",
        "Boletus punctatus": "##.. ..#. ##.# .#.. .#..",
    },
    "Insecta": {
        "Papilio magnus": "#.... #..## .##.. ..#.. .#...",
        "Papilio caudatus": ".###. #..#. ....# ...#. ...#.",
        "Papilio angustus": ".##.. ..#.. .#.## #.... #....",
        "Papilio humilis": ".#... #.### #...# .#...",
    },
    "Pinopsida": {
        "Pinus bina": "##.#. ..##. ....# ...#. ..#..",
        "Pinus quaterna": "##.#. ..#.. .##.. ...#. ....#",
        "Pinus columna": "##.#. ..#.. ..##. ....# ...#.",
        "Pinus parasol": "##... ..#.# ...## ..#.. ...#.",
    },
    "Plantae": {
        "Flos quinarius": "##... ..#.. .#... .##.# ...#.",
        "Flos radiatus": "#.##. ##... ..#.. ...#. ....#",
        "Flos trinus": "#.... ##.## ..#.. ...#. ..#..",
        "Flos solaris": ".##.. #.... .#.#. ..##. ....#",
    },
}

# Places205's own class paths, three of them a folder deeper as some are there
PLACE_PLANS = {
    "a/apartment_building/outdoor": "#.... ##... #.#.. ...## ..#..",
    "b/bedroom": "#.... #.... .##.. ##.#. ....#",
    "c/coast": "#.... .##.. ...#. ...## ..#.#",
    "d/desert/sand": "#.... .#... ..#.. .##.. .#.##",
    "f/field/wild": ".#... #.##. ...#. ....# ...##",
    "f/forest_path": ".#... #.... ##... ..##. ..#.#",
    "h/harbor": ".#... #.... .#... .##.. .#.##",
    "k/kitchen": ".#... ..#.. .##.. #.#.. ...##",
    "m/mountain": "..#.. ##.#. ....# ...## ....#",
    "s/skyscraper": "..#.. ##... #.#.. ...#. ...##",
}
