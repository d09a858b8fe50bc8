"""The only pretraining loop, and what it stands on."""
