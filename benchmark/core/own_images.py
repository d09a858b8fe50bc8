"""What the user's own images (--images) are called as a dataset. Readers, recipes and records know them by this name,
and none of these imports the others."""

OWN_IMAGES = "own_images"
