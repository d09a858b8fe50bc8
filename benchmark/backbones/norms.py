"""BatchNorm whose statistics are those of one process's images, of all processes', or of groups of so many.

Papers mean different things by one word: most train with each GPU's own statistics (groups of 32, say), some with those
of the whole batch. Here it is said, so that one process can do what eight did.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import batch_norm

from benchmark.core import distributed
from benchmark.core.errors import UserError
from benchmark.core.groups import layers_over_groups

Over = Literal["process", "all"] | int  # an int: groups of so many consecutive images of this process


def checked(over: Over) -> Over:
    """Raises UserError for what `over` cannot be: one image has no statistics."""
    if over not in ("process", "all") and not (isinstance(over, int) and over > 1):
        raise UserError(f'BatchNorm: over is "process", "all" or an integer of at least 2, not {over!r}')
    return over


class _Over(nn.modules.batchnorm._BatchNorm):
    """Mixed into torch's BatchNorm layers: in training mode, other statistics."""

    over: Over

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.over == "process":
            return super().forward(x)
        if self.over == "all":
            return super().forward(x) if distributed.world_size() == 1 else self._over_all(x)
        require_whole_groups(self, len(x))
        return self._over_groups(x.split(self.over))

    def _over_groups(self, groups: Sequence[Tensor]) -> Tensor:
        """As so many processes would: each has running statistics of its own, averaged after the step."""
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        means = self.running_mean.repeat(len(groups), 1)
        variances = self.running_var.repeat(len(groups), 1)
        affine, rate = (self.weight, self.bias), self.momentum or 0.0
        y = [
            batch_norm(group, mean, variance, *affine, training=True, momentum=rate, eps=self.eps)
            for group, mean, variance in zip(groups, means, variances, strict=True)
        ]
        self.running_mean.copy_(means.mean(0))
        self.running_var.copy_(variances.mean(0))
        self.num_batches_tracked += 1
        return torch.cat(y)

    def _over_all(self, x: Tensor) -> Tensor:
        axes = [0, *range(2, x.ndim)]
        shape = (1, -1, *[1] * (x.ndim - 2))
        wide = x.to(torch.promote_types(x.dtype, torch.float32))  # sums in bf16 would lose what they add
        # processes have equally many images, but detectors' may be of other sizes
        own = wide.new_tensor([x.numel() / x.shape[1]])
        variances, means = torch.var_mean(wide, axes, correction=0)
        # in one exchange, as each takes longer than what it carries
        everyones = distributed.gather(torch.cat([means, variances, own])[None], gradient=True)  # (processes, 2 C + 1)
        means, variances, counts = everyones.split([x.shape[1], x.shape[1], 1], dim=1)
        count = counts.detach().sum()
        share = counts.detach() / count
        mean = (share * means).sum(0)
        variance = (share * (variances + (means - mean).square())).sum(0)
        with torch.no_grad():
            assert self.running_mean is not None
            assert self.running_var is not None
            assert self.num_batches_tracked is not None
            self.num_batches_tracked += 1
            # without a momentum they are plain averages over the batches so far
            rate = 1 / int(self.num_batches_tracked) if self.momentum is None else self.momentum
            self.running_mean.lerp_(mean, rate)
            self.running_var.lerp_(variance * count / (count - 1), rate)
        y = (wide - mean.view(shape)) / (variance.view(shape) + self.eps).sqrt()
        if self.affine:
            y = y * self.weight.view(shape) + self.bias.view(shape)
        return y.to(x.dtype)


class BatchNorm2d(_Over, nn.BatchNorm2d):
    def __init__(self, channels: int, *, over: Over = "process", affine: bool = True) -> None:
        super().__init__(channels, affine=affine)
        self.over = checked(over)


class BatchNorm1d(_Over, nn.BatchNorm1d):
    def __init__(self, channels: int, *, over: Over = "process", affine: bool = True) -> None:
        super().__init__(channels, affine=affine)
        self.over = checked(over)


def require_whole_groups(module: nn.Module, count: int) -> None:
    """For methods that normalise several views of each image together: there a group may fill up with other views, and
    each number of processes has other groups. Raises UserError where `count` images of a process are not a number of
    groups in each of the module's BatchNorm layers over groups."""
    for layer in layers_over_groups(module):
        if count % layer.over:
            raise UserError(
                f"BatchNorm over groups of {layer.over} needs a per-process batch divisible by {layer.over}, not "
                f"{count}; set --recipe.batch-size to a multiple of it for each process, or --recipe.backbone.over"
            )


def without_groups(module: nn.Module) -> None:
    """BatchNorm layers over groups are from now on over all that they are given: the groups were the pretraining's, and
    a protocol that trains the network on has batches of its own."""
    for layer in layers_over_groups(module):
        layer.over = "process"


def over_all_processes(module: nn.Module) -> None:
    """BatchNorm layers over a process's own images are from now on over those of all processes, as on one. Raises
    UserError where there are several and a layer that trains cannot do so."""
    for layer in module.modules():
        if isinstance(layer, _Over):
            if layer.over == "process":
                layer.over = "all"
        elif isinstance(layer, nn.modules.batchnorm._BatchNorm) and layer.training and distributed.world_size() > 1:
            raise UserError(
                f"this network has a {type(layer).__name__} of {type(layer).__module__}, which would normalise each "
                "process's images by themselves; start it without torchrun, or build it with those of "
                "benchmark.backbones.norms (detectors: --engine torchvision)"
            )


def group_norm(channels: int) -> nn.GroupNorm:
    """As many groups as there may be: at most 32, each of 4 channels or more."""
    groups = next(g for g in range(32, 0, -1) if channels % g == 0 and (channels >= 4 * g or g == 1))
    return nn.GroupNorm(groups, channels)


@contextmanager
def few_told(advice: str) -> Iterator[None]:
    """A single value of a channel has no variance, which torch tells as a ValueError. It becomes a UserError."""
    try:
        yield
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise UserError(f"one image at a time is too few for BatchNorm. {advice}") from error
