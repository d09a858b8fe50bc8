"""The contract between a method and the engine.

A method is a torch module. The engine gives it batches, asks it for losses, steps the optimizers and saves its state.

A method may hold anything as parameters or buffers, run the backbone as often as it likes, talk to the other processes
through benchmark.core.distributed, and look at every image once an epoch through `on_epoch_start`.

It may not keep state anywhere else, because a resumed run would then differ. It may draw random numbers only from
torch's global generator, which the engine seeds before each step, or with `benchmark.core.draws`. It sees labels only
if its recipe says `labels=True`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import ClassVar, Protocol

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from benchmark.backbones.contract import Backbone
from benchmark.blocks.clustering import Work
from benchmark.core.errors import UserError
from benchmark.core.groups import layers_over_groups
from benchmark.data.batch import Batch


class EmbedAll(Protocol):
    def __call__(self, embed: Callable[[Batch], Tensor], still: bool = False) -> Iterator[tuple[Tensor, Tensor]]:
        """Run `embed(batch)` -> (B, D) over every image of the (first) pool once, without gradients and in evaluation
        mode, and yield each batch's (index (B,), features (B, D)) of all processes on every process: features of all
        images at once may not fit. All processes must take every batch, or all stop after the same one. still: of the
        settings' still views, in which nothing is random, instead of the training views."""
        ...


class Method(nn.Module):
    """Its whole state is parameters and buffers. Banks, queues and assignments are made at full size in __init__."""

    backbone: Backbone
    # Why the loss of some images depends on which process they are on, where the paper means it so; a test holds all
    # other methods to the same weights on one process and on two.
    local: ClassVar[str] = ""
    # Images, views or patches that it encodes at a time (benchmark.blocks.chunks), where these are not all of a batch;
    # of PIRL images, each with all its patches.
    chunk: int | None = None
    # Names of methods of its own that a transfer may ask for (ProtocolCard.asks), e.g. how often it solves its pretext.
    # Runs of methods that offer any keep the method whole.
    answers: ClassVar[tuple[str, ...]] = ()

    def prepare(self, embed_all: EmbedAll) -> None:
        """Called once, before the first step of the run: to start a bank or weights from the images themselves.
        A run of no steps calls it too."""

    def on_epoch_start(self, epoch: int, embed_all: EmbedAll) -> None:
        """Called before the first step of each epoch, not again when a run resumes inside one."""

    def work_between(self) -> list[Work]:
        """For the plan: what each call of `prepare` or `on_epoch_start` computes from what it saw, such as clusters.
        The passes over the images themselves are no part of it. From settings and shapes alone."""
        return []

    def order(self, epoch: int) -> Tensor:
        """For recipes whose order is Assigned: int64 indices of images, batch by batch, from state and epoch alone, the
        same on all processes. As many as there are images will do: what fills no batch is left out. Called after
        on_epoch_start, and again when a run resumes inside the epoch."""
        raise NotImplementedError(f"{type(self).__name__} needs order(), since its recipe's order is Assigned")

    def loss(self, batch: Batch) -> Tensor:
        """Mean loss over the batch's rows, a scalar."""
        raise NotImplementedError(f"{type(self).__name__} needs loss() or losses()")

    def losses(self, batch: Batch) -> Iterator[tuple[str | tuple[str, ...], Tensor]]:
        """(player, loss) in the order in which the players step; each is stepped as its loss is yielded. A tuple of
        players steps by one loss, after one backward pass. What stands after the last yield, such as a bank's update,
        happens after the last step."""
        yield "main", self.loss(batch)

    def players(self) -> dict[str, list[nn.Parameter]]:
        """Player -> the parameters that the recipe's optimizer of that name steps."""
        return {"main": [p for p in self.parameters() if p.requires_grad]}

    def export(self) -> Backbone:
        """What the run leaves behind for transfers: the backbone, unless the paper transfers something made from it.
        Called on process 0 alone, so it must not communicate."""
        return self.backbone

    def classify(self, images: Tensor) -> Tensor:
        """uint8 (B, 3, H, W), as the protocols crop them -> (B, classes), the higher the likelier: what the method says
        of the classes that its labels stood for. Runs of a method that has this keep the method whole."""
        raise NotImplementedError(f"{type(self).__name__} has no classifier of its own")

    def offers(self) -> list[str]:
        """What a transfer may ask of it: `classify`, where it has that, and its own `answers`."""
        if missing := [name for name in self.answers if not callable(getattr(self, name, None))]:
            raise UserError(f"{type(self).__name__}.answers names {missing[0]!r}, which is not a method of it")
        return [*(["classify"] if type(self).classify is not Method.classify else []), *self.answers]

    def scalars(self) -> dict[str, float]:
        """Figures for the log besides the losses. Called only when the log is written."""
        return {}

    def depends_on_processes(self) -> list[str]:
        """What makes a run on several processes, or in chunks, another than one at once on one; if nothing does, they
        differ by the order of sums alone."""
        layers = list(self.modules())
        norms = [one for one in layers if isinstance(one, _BatchNorm)]
        in_chunks = [one for one in self.backbone.modules() if isinstance(one, _BatchNorm)] if self.chunk else []
        found = {
            self.local: bool(self.local),
            "BatchNorm: statistics of each process's own images": any(map(_is_by_process, norms)),
            # over all, two processes have twice as many images in a chunk
            "BatchNorm: statistics of chunks": not {*in_chunks} <= {*layers_over_groups(self.backbone)},
            "dropout: each process draws for itself": any(
                isinstance(one, nn.modules.dropout._DropoutNd) and one.p for one in layers
            ),
        }
        return [what for what, is_so in found.items() if is_so]

    def sharded_buffers(self) -> set[str]:
        """Names of the buffers of which each process holds a different part: those that a block, such as a memory bank,
        says are `divided`. All other state is equal everywhere."""
        parts = ((name, getattr(module, "divided", ())) for name, module in self.named_modules())
        return {f"{name}.{buffer}".removeprefix(".") for name, divided in parts for buffer in divided}


def _is_by_process(norm: nn.Module) -> bool:
    return getattr(norm, "over", "process") == "process"
