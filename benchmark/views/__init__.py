"""From an image to training views: what torchvision.transforms.v2 lacks, or does only one image at a time."""
