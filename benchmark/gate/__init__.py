"""The regression gate: which numbers moved, and which records are bad or stale."""
