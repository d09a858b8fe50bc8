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

from torch import Tensor, nn

from benchmark.backbones.contract import Backbone
from benchmark.data.batch import Batch

# Runs `embed(batch)` -> (B, D) once over every pretraining image, without gradients and in evaluation mode. Yields
# (index (B,), features (B, D)) batch by batch, since the features of all images may not fit into memory. Every process
# gets the rows of all processes, and must take every batch.
EmbedAll = Callable[[Callable[[Batch], Tensor]], Iterator[tuple[Tensor, Tensor]]]


class Method(nn.Module):
    """Its whole state is parameters and buffers. Banks, queues and assignments are made at full size in __init__."""

    backbone: Backbone

    def loss(self, batch: Batch) -> Tensor:
        """Mean loss over the batch's rows, a scalar."""
        raise NotImplementedError(f"{type(self).__name__} needs loss() or losses()")

    def losses(self, batch: Batch) -> Iterator[tuple[str, Tensor]]:
        """(player, loss) in the order in which the players step. Each player is stepped as its loss is yielded. Code
        after the last yield, such as the update of a memory bank, runs after the last step."""
        yield "main", self.loss(batch)

    def players(self) -> dict[str, list[nn.Parameter]]:
        """Player -> the parameters that the recipe's optimizer of that name steps."""
        return {"main": [p for p in self.parameters() if p.requires_grad]}

    def on_epoch_start(self, epoch: int, embed_all: EmbedAll) -> None:
        """Called before the first step of each epoch, but not again when a run resumes within an epoch."""

    def scalars(self) -> dict[str, float]:
        """Figures for the log besides the losses. Called only when the log is written."""
        return {}

    def sharded_buffers(self) -> set[str]:
        """Names of the buffers of which each process holds a different part. All other state is equal everywhere."""
        return set()
