"""The ledger of reported numbers, measured ones beside them, and the pages that show both."""
