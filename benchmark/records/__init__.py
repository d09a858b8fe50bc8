"""Measured scores: one file each, with everything needed to tell what the number is."""
