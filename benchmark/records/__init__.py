"""Measured scores: one file each, with everything needed to tell what the number is."""

from benchmark.records.frames import frame

__all__ = ["frame"]
