"""Weights that come from elsewhere and go elsewhere: reading other projects' files, and writing backbones for them."""
