"""`python -m benchmark` is `sslbench`; torchrun needs it."""

from benchmark.cli import main

main()
