"""What every other part stands on: errors, files, plain values, processes, random streams, optimisation values."""
