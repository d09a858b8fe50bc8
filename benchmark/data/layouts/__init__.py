"""One module per on-disk layout of a real dataset; `datasets.Layout` says what each defines."""
