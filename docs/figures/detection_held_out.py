"""Scores backbones in detection at desk scale on images that no table reports: trained on VOC2007 train, scored on val.

    python docs/figures/detection_held_out.py DATA OUT BACKBONE… [--steps 1100] [--seed 0] [--device cpu]

All else is as `voc07_det_c4_pirl` has it. OUT gets a JSON line for each backbone, with AP, AP50 and AP75 in percent.
The table of docs/pirl-detection.md is made of them.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import replace
from pathlib import Path

import torch

from benchmark.backbones.weights import load_backbone, read_facts
from benchmark.core.optimisation import Steps
from benchmark.transfers.contract import Context, Scores
from benchmark.transfers.detection import voc07_det_c4_pirl as protocol
from benchmark.transfers.detection.c4 import Detection

HELD_OUT = (("voc2007", "train"), ("voc2007", "val"))


def scored(backbone: Path, data: Path, steps: int, seed: int, device: str) -> Scores:
    desk = protocol.values["desk"]
    values = replace(desk, course=replace(desk.course, length=Steps(steps)))
    held_out = Detection(replace(protocol.card, datasets=HELD_OUT), {"desk": values}, protocol.task)
    network, _ = load_backbone(backbone)
    with tempfile.TemporaryDirectory() as workspace:
        context = Context(data, "desk", seed, Path(workspace), torch.device(device), 0, lambda *_: None)
        return held_out.run(network, context)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("backbones", type=Path, nargs="+")
    parser.add_argument("--steps", type=int, default=1_100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    asked = parser.parse_args()
    for backbone in asked.backbones:
        scores = scored(backbone, asked.data, asked.steps, asked.seed, asked.device)
        recipe = read_facts(backbone)["origin"]["recipe"]
        line = {
            "backbone": str(backbone),
            "recipe": recipe,
            "seed": asked.seed,
            "steps": asked.steps,
            "device": asked.device,
        }
        with open(asked.out, "a") as out:
            print(json.dumps({**line, "data": scores.data, **scores.metrics}), file=out)


if __name__ == "__main__":
    main()
