"""Plain JPEGs at half of Pillow's time, to the same pixels: both decode with libjpeg-turbo. The rest is left to Pillow.

torchvision.io would be as good, but its decoders are deprecated and will be removed (torchvision 0.29).
"""

from __future__ import annotations

import math

import simplejpeg
from PIL import Image

START = b"\xff\xd8\xff"
PLAIN = ("YCbCr", "RGB", "Gray")  # CMYK and YCCK are not: Pillow's conversion is the one that is known


def decode_plain_jpeg(data: bytes) -> Image.Image | None:
    """8-bit RGB. None for what is no plain JPEG of 8 bits, has more pixels than Pillow allows without a warning, or is
    damaged in any way: Pillow knows what of it can be used, and what to call it."""
    if not data.startswith(START):
        return None
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
        if colours not in PLAIN or height * width > (Image.MAX_IMAGE_PIXELS or math.inf):
            return None
        return Image.fromarray(simplejpeg.decode_jpeg(data))
    except ValueError:
        return None
