"""What every other part builds on: errors, files, plain values, processes, random streams, optimisation values."""
