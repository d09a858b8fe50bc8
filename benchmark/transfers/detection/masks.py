"""Masks between the image and the cells of a box, by detectron2's rules: polygons drawn into the cells to learn from,
probabilities in the cells drawn into the image to be scored."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

LEAST_SIDE = 0.1  # of a box, in pixels; against dividing by nothing
THRESHOLD = 0.5  # from this probability on a pixel belongs to the object


def within_boxes(masks: Sequence[tuple[np.ndarray, ...]], boxes: Tensor, side: int) -> Tensor:
    """(N, side, side) bool on the boxes' device: which cells of each box (N, 4) its object's polygons cover."""
    corners = boxes.cpu().numpy()
    cells = [_cells(polygons, box, side) for polygons, box in zip(masks, corners, strict=True)]
    return torch.from_numpy(np.stack(cells)).to(boxes.device)


def _cells(polygons: tuple[np.ndarray, ...], box: np.ndarray, side: int) -> np.ndarray:
    from pycocotools import mask

    scale = side / np.maximum(box[2:] - box[:2], LEAST_SIDE)
    drawn = mask.frPyObjects([((polygon - box[:2]) * scale).ravel().tolist() for polygon in polygons], side, side)
    return mask.decode(mask.merge(drawn)).astype(bool)


def pasted(cells: Tensor, box: Tensor, size: tuple[int, int]) -> np.ndarray:
    """(H, W) bool: probabilities in the cells (side, side) of a box, drawn into an image of (width, height). They are
    interpolated between the cells' centres, and fall to 0 within half a cell outside the box."""
    width, height = size
    left, top = (max(int(value) - 1, 0) for value in box[:2].floor().tolist())
    right, bottom = (min(int(value) + 1, most) for value, most in zip(box[2:].ceil().tolist(), size, strict=True))
    x = (torch.arange(left, right) + 0.5 - box[0]) / (box[2] - box[0]) * 2 - 1
    y = (torch.arange(top, bottom) + 0.5 - box[1]) / (box[3] - box[1]) * 2 - 1
    grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=2)
    seen = F.grid_sample(cells[None, None], grid[None], align_corners=False)[0, 0]
    image = np.zeros((height, width), dtype=bool)
    image[top:bottom, left:right] = (seen >= THRESHOLD).numpy()
    return image


def decompressed(counts: str, size: tuple[int, int]) -> np.ndarray:
    """The mask (H, W) bool of an image of (width, height) from its compressed run lengths."""
    from pycocotools import mask

    return mask.decode({"size": [size[1], size[0]], "counts": counts}).astype(bool)


def compressed(image: np.ndarray) -> str:
    """COCO's compressed run lengths of a mask (H, W)."""
    from pycocotools import mask

    return mask.encode(np.asfortranarray(image, dtype=np.uint8))["counts"].decode()
