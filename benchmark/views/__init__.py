"""From an image to training views: what torchvision.transforms.v2 lacks, or does one image at a time."""
