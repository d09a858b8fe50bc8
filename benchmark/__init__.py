"""sslbench: the harness. It knows no method by name and never imports the recipes (tests/test_architecture.py)."""

__version__ = "0.1.0"
