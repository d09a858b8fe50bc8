"""Readers for the datasets' real on-disk layouts, splits, the deterministic loader, and the doctor."""
