"""The ledger of reported numbers, measured ones beside them, and the pages that show both."""

from benchmark.tables.ledger import ledger_frame

__all__ = ["ledger_frame"]
