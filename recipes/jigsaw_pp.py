"""Jigsaw++: a harder jigsaw puzzle, and an AlexNet that learns from the clusters of what it taught another network.

Noroozi, Vinjimoor, Favaro & Pirsiavash, "Boosting Self-Supervised Learning via Knowledge Transfer", CVPR 2018,
arXiv:1805.00385. What it leaves open of the puzzle is as in the earlier Jigsaw (recipes/jigsaw_alexnet.py) and in its
authors' released Caffe code.

The pretext task, jigsaw_pp, is a jigsaw puzzle of which 0, 1 or 2 tiles come from another image. To name the
permutation the network must find out which tiles belong together. Any two permutations differ in 3 places or more, so
that two lost tiles leave no doubt. As in the earlier Jigsaw, conv1 has a stride of 2 while tiles are small, and what is
left behind is conv1 ... conv5 with AlexNet's stride of 4.

The features that it learned then become labels: the clusters of all images by one layer of that network. cc_jigsaw_pp
is an AlexNet trained from scratch to name them, as it would be with ImageNet's labels. Only labels pass from the one
network to the other, so they need not be alike: the paper's best student, at 72.5 mAP on VOC07, has a VGG-16 as its
teacher. Here it is an AlexNet, which gives 69.9.

Departures:
- The permutations are drawn greedily from our own seed, and there are as many as in the authors' file.
- A tile may lie anywhere in its cell that leaves room for the shift of its channels: 0 to 19 pixels, and 0 to 21 where
  a puzzle is grey and nothing is shifted. In the released code it is 0 to 18, and grey puzzles are shifted too.
- Colour is dropped from 70 % of the puzzles, as the paper says. The released code drops it from half, and turns half of
  the others into a fixed mix of green and magenta.
- Tiles of another image are grey where the puzzle is, and only there. The released code draws that for each image by
  itself, so that a single grey tile gives itself away.
- Grey is the luma of the three colours. In the released code it is their mean.
- The pretext's fc7 and fc8 and the student's classifier start with PyTorch's weights, as those of the earlier
  Jigsaw do here: they are nearly as large as Caffe's, and larger in a narrow network.
- The other image may be the image itself, once in as many draws as there are images.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from PIL.Image import Image
from torch import Tensor, nn
from torch.nn.functional import adaptive_max_pool2d, cross_entropy
from torchvision.transforms import v2

from benchmark.backbones.alexnet import CAFFENET, CONTEXT_FREE
from benchmark.backbones.contract import Backbone
from benchmark.blocks.clustering import Work, clusters_of_all, clusters_of_unit_vectors, kmeans_work
from benchmark.blocks.permutations import TILES, permutation_set
from benchmark.blocks.puzzles import PuzzleHead, standardised_each
from benchmark.core.bounds import Clusters, Count, CountOrNone, Probability
from benchmark.core.errors import UserError
from benchmark.data.batch import Batch
from benchmark.method import EmbedAll, Method
from benchmark.recipe import (
    BGR,
    DESK,
    SGD,
    Change,
    Given,
    InputSpec,
    Milestones,
    Part,
    Pool,
    Recipe,
    Settings,
    Steps,
)
from benchmark.views.crops import squashed_crop
from benchmark.views.patches import grid_patches, shifted_channels
from recipes.jigsaw_alexnet import SMALL_TILES, NineColumns

LEAST_DISTANCE = 3  # between permutations: two tiles may be lost
MOST_FOREIGN = 2


@dataclass(frozen=True)
class JigsawPlusPlus(Settings):
    """The input's size is a tile's: 64 pixels."""

    P: Count = 701
    short_side: Count = 256
    crop_size: Count = 255  # 3 x 3 cells of 85
    channel_shift: CountOrNone = 2  # pixels by which a colour may be moved against the others
    grey: Probability = 0.7
    fc7: Count = 4096
    dropout: Probability = 0.5
    transfer_size: Count = 227  # of the images that the transferred network sees, in pixels

    def sample(self, open_image: Callable[[int], Image], index: int, spec: InputSpec) -> dict[str, Tensor]:
        grey = bool(torch.rand(()) < self.grey)  # of the whole puzzle: or a grey tile would be known for foreign
        tiles = self.cut(open_image(index), spec.size, grey)
        if foreign := int(torch.randint(MOST_FOREIGN + 1, ())):
            other = self.cut(open_image(int(torch.randint(1 << 62, ()))), spec.size, grey)
            tiles[torch.randperm(TILES)[:foreign]] = other[torch.randperm(TILES)[:foreign]]
        S = int(torch.randint(self.P, ()))
        order = torch.from_numpy(permutation_set(self.P, least_distance=LEAST_DISTANCE)[S]).long()
        return {"tiles": tiles[order], "S": torch.tensor(S)}  # (9, 3, 64, 64), ()

    def cut(self, image: Image, tile: int, grey: bool) -> Tensor:
        """uint8 (9, 3, 64, 64), row by row. Each colour of each tile is moved by itself, against chromatic
        aberration."""
        if self.crop_size > self.short_side:
            raise UserError(
                f"{self.crop_size} pixels cannot be cropped from images resized to {self.short_side}: set "
                "method.crop_size lower, or method.short_side higher"
            )
        whole = v2.functional.resize(image, [self.short_side])
        cropped = v2.functional.center_crop(whole, [self.crop_size])
        if grey:
            cropped = v2.functional.to_grayscale(cropped, num_output_channels=3)
        shift = 0 if grey else self.channel_shift
        patches = grid_patches(v2.functional.pil_to_tensor(cropped), 3, tile + shift)
        return shifted_channels(patches, tile) if shift else patches

    def build(self, backbone: Backbone, given: Given) -> Method:
        permutation_set(self.P, least_distance=LEAST_DISTANCE)  # here, so that the loader processes inherit it
        head = PuzzleHead(backbone.out_channels, self.fc7, self.P, self.dropout)
        return NineColumns(backbone, head, normalised=True, transfer_size=self.transfer_size)


@dataclass(frozen=True)
class ClusterNames(Settings):
    clusters: Clusters = 2000
    stage: str = "conv4"  # of the teacher, whose clusters they are
    # NOTE: the max-pool's size, and that k-means sees vectors of length 1, are as in a port of the method.
    cells: Count = 4  # of that stage's map after the max-pool, on each side
    iterations: Count = 20  # of k-means

    def views(self, image: Image, spec: InputSpec) -> dict[str, Tensor]:
        return {"image": squashed_crop(image, spec.size)}  # (3, 227, 227)

    def build(self, backbone: Backbone, given: Given) -> Method:
        return Student(self, backbone, given.backbones["teacher"], given.num_images)


class Student(Method):
    y: Tensor

    def __init__(self, settings: ClusterNames, backbone: Backbone, teacher: Backbone, num_images: int) -> None:
        super().__init__()
        if settings.stage not in (maps := [name for name, stage in teacher.stages.items() if stage.stride]):
            raise UserError(f"method.stage {settings.stage!r} is no map of the teacher's; it has {', '.join(maps)}")
        self.backbone, self.settings = backbone, settings
        self.fc8 = nn.Linear(backbone.out_channels, settings.clusters)
        self.register_buffer("y", torch.zeros(num_images, dtype=torch.int64))
        # in a tuple torch does not see it: it is neither trained nor saved, and all that it taught is in y
        self.given = (teacher,)

    def prepare(self, embed_all: EmbedAll) -> None:
        seed = int(torch.randint(1 << 31, ()))
        (teacher,) = self.given
        teacher.to(self.y.device).eval()
        k, iterations = self.settings.clusters, self.settings.iterations
        features = embed_all(self.taught, still=True)
        named = clusters_of_all(features, len(self.y), lambda x: clusters_of_unit_vectors(x, k, iterations, seed))
        self.y.copy_(named)

    def work_between(self) -> list[Work]:
        (teacher,) = self.given
        dim = teacher.stages[self.settings.stage].channels * self.settings.cells**2
        return [kmeans_work(len(self.y), dim, self.settings.clusters, self.settings.iterations)]

    def taught(self, batch: Batch) -> Tensor:
        """The teacher's features: (B, 384 x 4 x 4)."""
        (teacher,) = self.given
        # NOTE: clusters are of each image's centre crop, standardised as the teacher's tiles were. The student learns
        # their names from the whole image, squashed, and crops of it. The paper does not say what k-means sees.
        x = standardised_each(teacher.input.prepare(batch.views["image"]))
        maps = teacher.forward_stages(x, self.settings.stage)[self.settings.stage]
        return adaptive_max_pool2d(maps, self.settings.cells).flatten(1)

    def loss(self, batch: Batch) -> Tensor:
        x = self.backbone.input.prepare(batch.views["image"])  # (B, 3, 227, 227)
        logits = self.fc8(self.backbone(x.contiguous(memory_format=torch.channels_last)))  # (B, clusters)
        return cross_entropy(logits.float(), self.y[batch.index])


jigsaw_pp = Recipe(
    title="Jigsaw++",
    method=JigsawPlusPlus(),
    backbone=CONTEXT_FREE,
    input=InputSpec(64, BGR()),
    data=Pool("imagenet"),
    length=Steps(350_000),  # NOTE: the pretext is as long as the released solver's, which is Jigsaw's
    batch_size=256,
    optimizers={"main": SGD(lr=0.01, momentum=0.9, weight_decay=5e-4, decays="weights", bias_rate=2.0)},
    schedule=Milestones(at=(Part(2 / 7), Part(4 / 7), Part(6 / 7)), gamma=0.1),  # every 100,000 steps
    reported="69.8 mAP VOC07 classification, fine-tuned (its Table 3)",
    desk=(
        *SMALL_TILES,
        Change("method.short_side", 96, "the images' own size"),
        Change("method.crop_size", 96, "3 x 3 cells of 32"),
        Change("method.P", 100, "a short run shows each of 701 permutations too rarely to learn them"),
    ),
)

cc_jigsaw_pp = Recipe(
    title="Cluster classification, Jigsaw++",
    method=ClusterNames(),
    backbone=CAFFENET,
    input=InputSpec(227, BGR()),
    data=Pool("imagenet"),
    after={"teacher": "jigsaw_pp"},
    length=Steps(450_000),  # NOTE: the student trains as BVLC's AlexNet does with labels, for 90 epochs
    batch_size=256,
    optimizers={"main": SGD(lr=0.01, momentum=0.9, weight_decay=5e-4, decays="weights", bias_rate=2.0)},
    schedule=Milestones(at=(Part(2 / 9), Part(4 / 9), Part(6 / 9), Part(8 / 9)), gamma=0.1),  # every 100,000 steps
    reported="69.9 mAP VOC07 classification, fine-tuned, with an AlexNet as its teacher (its Table 3)",
    desk=(
        *DESK,
        Change("method.clusters", 40, "50 images a cluster; a smoke world has 48 images", drawn=True),
    ),
)
