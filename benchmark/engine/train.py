"""The only pretraining loop.

Each step takes the batch that (seed, epoch, step) determines, seeds torch from (seed, step, rank), asks the method for
its losses, steps each player as its loss is yielded, and averages over processes. State is saved at intervals, and
when a signal announces the end (benchmark.engine.notice). A run that was killed resumes from there and ends with the
same bits.

Departures:
- BatchNorm normalises over each process's own images, unless a recipe says otherwise (`over`).
- Running statistics are averaged over processes at every step. Released code keeps those of one process.
- The last incomplete batch of an epoch is dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from benchmark.backbones.norms import few_told
from benchmark.backbones.weights import load_backbone, read_facts, save_backbone, start_from
from benchmark.core import distributed
from benchmark.core.draws import mix, seed_torch
from benchmark.core.errors import UserError
from benchmark.core.files import file_hash
from benchmark.core.memory import forget_peak, peak_gb, peak_in_words
from benchmark.core.mixed_precision import autocast, device_name
from benchmark.core.optimisation import Precision
from benchmark.core.plain import as_plain
from benchmark.core.provenance import commit, versions
from benchmark.core.streams import Stream
from benchmark.data.batch import Batch
from benchmark.data.handover import lost_loader_told
from benchmark.data.image_set import ImageSet
from benchmark.data.loader import step_seed
from benchmark.engine.checkpoint import check_identity, clear_checkpoints, load_checkpoint, locked, save_checkpoint
from benchmark.engine.divergence import FiniteCheck
from benchmark.engine.feed import Feed, check_order, given_of, seen_images
from benchmark.engine.losses import LossMeans, check_all_stepped, checked_loss
from benchmark.engine.method_file import classes_of, save_method
from benchmark.engine.notice import Notice
from benchmark.engine.players import Player, build_players, set_rates
from benchmark.engine.progress import LOG_SECONDS, Pace, RunProgress, Timer, in_a_line
from benchmark.engine.stretches import Maker, change_told, continued
from benchmark.engine.trackers import Tracker, open_trackers
from benchmark.engine.watch import Watch
from benchmark.method import EmbedAll, Method
from benchmark.recipe.contract import Recipe, recipe_hash
from benchmark.recipe.pools import Given

CHECKPOINT_SECONDS = 60.0
NOTHING = Watch()


@dataclass(frozen=True)
class Machine:
    """Where a run runs.

    On a CPU the number of loader workers does not change a bit of the result. The number of processes may change the
    last bits, through the order of sums, or all of it, which the backbone file says (Method.depends_on_processes). The
    number of threads may change the last bits too.
    """

    device: torch.device
    workers: int
    checkpoint_seconds: float = CHECKPOINT_SECONDS


def pretrain(
    recipe: Recipe,
    name: str,
    images: ImageSet | Mapping[str, ImageSet],
    run: Path,
    machine: Machine,
    after: Mapping[str, Path] | None = None,
    of_data: Mapping[str, Any] | None = None,
    init: Path | None = None,
    watch: Watch = NOTHING,
) -> Path:
    """Train `recipe` on `images` in the folder `run` and return run/backbone.safetensors, which appears last and whole.
    Before it run/method.safetensors appears, where the method offers something to transfers (Method.offers).

    images: of each of the recipe's pools by name, or one for all. after: backbone files of the recipes that this one
    comes after, by the names it gives them. of_data: what the backbone file should say of the images besides, such as
    what they lack. init: the backbone file whose weights the backbone starts from. watch: what somebody wants to see
    meanwhile.

    Goes on from run/checkpoint.pt if there is one, and returns at once if the backbone is there. SIGTERM and SIGUSR2
    act when the step has ended and a checkpoint is written. Raises UserError for a
    folder in use or another recipe's, a batch that does not fit, an image that cannot be read, a full disk, or a loss
    that is not finite (named by its step).
    """
    found = dict.fromkeys(recipe.pools, images) if isinstance(images, ImageSet) else images
    pools = {key: seen_images(pool, found[key]) for key, pool in recipe.pools.items()}
    after = after or {}
    _check_given(recipe, after)
    identity = run_identity(recipe, name, pools, after, init)
    work = _Work(recipe, pools, run, machine, identity, provenance(machine.device, recipe), after, init, watch)
    path = run / "backbone.safetensors"
    told = few_told(few_of_batch(recipe))
    with distributed.lost_process_told(), lost_loader_told(), told, locked(run), Notice() as notice:
        distributed.require_same("code of the benchmark", work.made_by["versions"]["sslbench code"])
        with distributed.together():
            is_done = _is_done(path, identity)
        trained = None if is_done else _trained(work, notice)
        with distributed.together():
            if distributed.rank() == 0:
                if trained:
                    _write(path, work, trained, of_data or {})
                clear_checkpoints(run)
    return path


@dataclass(frozen=True)
class _Work:
    """What `pretrain` is to do. pools: as the method may see them. identity: what the run is. made_by: by what code, on
    what machine."""

    recipe: Recipe
    pools: Mapping[str, ImageSet]
    run: Path
    machine: Machine
    identity: dict[str, Any]
    made_by: dict[str, Any]
    after: Mapping[str, Path]
    init: Path | None
    watch: Watch

    @property
    def title(self) -> str:
        return f"{self.identity['recipe']} seed {self.recipe.seed}"


class _Trained(NamedTuple):
    """The recipe's method after its last step, what it was built from, what its losses were, what made its steps."""

    method: Method
    given: Given
    losses: dict[str, Any]
    makers: list[Maker]


def _write(path: Path, work: _Work, trained: _Trained, of_data: Mapping[str, Any]) -> None:
    """The method file, where the method offers something to transfers, and then the backbone file."""
    method = trained.method
    halves = {"stretches": trained.makers} if len(trained.makers) > 1 else {}
    came_to: dict[str, Any] = {**trained.losses, "made_by": work.made_by | halves}
    came_to["depends_on_processes"] = method.depends_on_processes() if trained.losses["losses"] else []
    came_to |= {**_recipes_before(work.after), **_started_from(work.init), **of_data}
    classes = _classes(work.pools, work.after)
    kept = _keep(work.run / "method.safetensors", method, work.recipe, trained.given, classes)
    save_backbone(path, method.export(), work.identity | came_to | kept)


def _check_given(recipe: Recipe, after: Mapping[str, Path]) -> None:
    for key, name in recipe.after.items():
        if key not in after or not after[key].is_file():
            where = after.get(key, "no file was given")
            raise UserError(f"{recipe.title}: the backbone of {name} is not there ({where}); pretrain {name} first")


def run_identity(
    recipe: Recipe,
    name: str,
    pools: Mapping[str, ImageSet],
    after: Mapping[str, Path],
    init: Path | None = None,
) -> dict[str, Any]:
    """What a run is: the same identity ends with the same backbone."""
    identity = {
        "recipe": name,
        "recipe_hash": recipe_hash(recipe),
        "seed": recipe.seed,
        "data": " + ".join(images.name for images in pools.values()),
        "data_fingerprint": data_fingerprint(pools),
        "num_images": len(next(iter(pools.values()))),
        "world_size": distributed.world_size(),
        "resolved": as_plain(recipe),
    }
    identity |= {"init": file_hash(init)} if init else {}
    return identity | ({"after": {key: file_hash(path) for key, path in after.items()}} if after else {})


def _recipes_before(after: Mapping[str, Path]) -> dict[str, dict[str, str]]:
    """What made the backbones that it was given, for whoever asks later whether their recipes are still the same."""
    hashes = {key: read_facts(path)["origin"].get("recipe_hash", "") for key, path in after.items()}
    return {"after_recipes": hashes} if hashes else {}


def _started_from(init: Path | None) -> dict[str, Any]:
    """What the weights that it started from came from, and those before them."""
    if init is None:
        return {}
    origin = read_facts(init)["origin"]
    kept = ("recipe", "recipe_hash", "seed", "data", "data_fingerprint", "resolved", "file", "sha256", "init_from")
    return {"init_from": {key: origin[key] for key in kept if key in origin}}


def data_fingerprint(pools: Mapping[str, ImageSet]) -> str:
    return ",".join(images.fingerprint() for images in pools.values())


def provenance(device: torch.device, recipe: Recipe) -> dict[str, Any]:
    """What should not change the result, and so is not part of the identity, but is of interest to its readers."""
    return {
        "commit": commit(),
        "versions": versions(type(recipe.method), type(recipe.backbone)),
        "device": device_name(device),
        "threads": torch.get_num_threads(),
    }


def build_method(recipe: Recipe, given: Given, init: Path | None = None) -> Method:
    """The recipe's module with the initial weights that its seed fixes; the backbone's are those of the file `init`."""
    torch.manual_seed(recipe.seed)
    backbone = recipe.backbone.build(recipe.input)
    if init:
        start_from(backbone, init)
    return recipe.method.build(backbone, given)


def train_steps(recipe: Recipe, num_images: int) -> int:
    return recipe.length.steps(max(num_images // recipe.batch_of(next(iter(recipe.pools))), 1))


def _classes(pools: Mapping[str, ImageSet], after: Mapping[str, Path]) -> tuple[str, ...]:
    """What the labels stand for, in index order; without labels, those of a method that the recipe comes after."""
    own = (images.classes for images in pools.values() if images.labels is not None)
    earlier = (classes_of(path.with_name("method.safetensors")) for path in after.values())
    return next(filter(None, (*own, *earlier)), ())


def _keep(
    path: Path, method: Method, recipe: Recipe, given: Given, classes: tuple[str, ...]
) -> dict[str, dict[str, Any]]:
    """Write the method file of a method that offers something to transfers; what the backbone file says of it."""
    if not method.offers():
        return {}
    save_method(path, method, recipe, given, classes)
    return {"method": {"offers": method.offers(), "hash": file_hash(path)}}


def _is_done(path: Path, identity: dict[str, Any]) -> bool:
    """Whether the run's backbone is there, made by any number of processes. Another run's is never overwritten."""
    if not path.is_file():
        return False
    origin = read_facts(path)["origin"]
    theirs = {key: origin.get(key) for key in identity}
    check_identity(path, theirs, {**identity, "world_size": origin.get("world_size")})
    return True


def _trained(work: _Work, notice: Notice) -> _Trained:
    recipe, device = work.recipe, work.machine.device
    given = given_of(work.pools, {name: load_backbone(path)[0] for name, path in work.after.items()})
    method = build_method(recipe, given, work.init).to(device).to(memory_format=torch.channels_last)
    total = train_steps(recipe, given.num_images)
    feed = partial(Feed, recipe, work.pools, work.machine.workers, total)
    if total == 0:
        if type(method).prepare is not Method.prepare:
            with closing(feed()) as opened:
                _begun(method.prepare, recipe, 0, opened.embed_all(method, device, 0))
        return _Trained(method, given, {"losses": {}}, [])
    check_order(method, recipe)
    forget_peak()
    with closing(feed()) as opened:
        training = _Training(work, method, opened, total, notice)
        training.run()
    losses = training.losses.last()
    work.watch.tell_losses(work.title, losses)
    if distributed.rank() == 0:
        print(f"{work.title}  pretraining: {peak_in_words()}", flush=True)
    return _Trained(method, given, {"losses": losses, "loss_course": training.losses.course()}, training.makers)


class _Training:
    """The steps of a run, from where its checkpoint left off."""

    def __init__(self, work: _Work, method: Method, feed: Feed, total: int, notice: Notice) -> None:
        self.work, self.method, self.feed, self.total, self.notice = work, method, feed, total, notice
        machine = work.machine
        self.players = build_players(method, work.recipe)
        self.losses = LossMeans(self.players, total, feed.steps_per_epoch).to(machine.device)
        with distributed.together():
            self.first, before = load_checkpoint(work.run, work.identity, method, self.players, self.losses)
        self.makers = continued(before, {"first_step": self.first, **work.made_by})
        if self.first and len(self.makers) > len(before) and distributed.rank() == 0:
            change = f"after a change, which the record will say: {change_told(self.makers)}"
            print(f"{work.run}: goes on at step {self.first} {change}")
        self.finite = FiniteCheck(work.run, machine.device)
        self.pace = Pace(work.recipe.batch_size)
        self.look = Timer(min(LOG_SECONDS, machine.checkpoint_seconds))
        self.save = Timer(machine.checkpoint_seconds)

    def run(self) -> None:
        trackers = self._trackers()
        self.work.watch.tell_losses(self.work.title)
        self.notice.keep_back()
        with RunProgress(self.work.run, self.work.title, self.total, self.first, trackers) as report:
            for step, batch in self.pace.timed(self._batches()):
                self._do(step, batch, report)
        if self.first == 0:
            check_all_stepped(self.players, self.method)

    def _trackers(self) -> list[Tracker]:
        work, trackers = self.work, list[Tracker]()
        with distributed.together():
            if distributed.rank() == 0:
                wanted, folder, resumes = work.watch.trackers, work.watch.tracked_in, self.first > 0
                trackers = open_trackers(wanted, folder, work.run, work.title, work.identity, resumes)
        return trackers

    def _batches(self) -> Iterator[tuple[int, Batch]]:
        """(step, its batch on the device), with what a method does before the run and before each epoch."""
        recipe, method, device = self.work.recipe, self.method, self.work.machine.device
        step = self.first
        while step < self.total:
            epoch, step_of_epoch = divmod(step, self.feed.steps_per_epoch)
            if step_of_epoch == 0:
                self.finite.check(step, method)
                embed_all = self.feed.embed_all(method, device, epoch)
                for begin in ([method.prepare] if step == 0 else []) + [partial(method.on_epoch_start, epoch)]:
                    with self.notice.at_once():
                        _begun(begin, recipe, epoch, embed_all)
            for batch in self.feed.epoch(step, method):
                yield step, batch.to(device).at(step_seed(recipe.seed, step), epoch, step / self.total)
                step += 1

    def _do(self, step: int, batch: Batch, report: RunProgress) -> None:
        """One step, and what is due after it."""
        recipe, steps_per_epoch, done = self.work.recipe, self.feed.steps_per_epoch, step + 1
        set_rates(self.players, recipe, step, self.total, steps_per_epoch)
        seed_torch(mix(recipe.seed, Stream.IN_STEP, step, distributed.rank()))
        figures = train_step(self.method, batch, self.players, recipe.precision)
        self.finite.note(step, figures)
        self.losses.note(step, figures)
        report.stepped(done)
        probes = self.work.watch.is_due(done, self.total, steps_per_epoch)
        # its signals act at once there, so that a limit does not pass meanwhile: save what comes before
        has_pass = type(self.method).on_epoch_start is not Method.on_epoch_start
        before_pass = has_pass and done % steps_per_epoch == 0
        is_an_end = step in (self.first, self.total - 1)
        if self.look.due(now=bool(self.notice.waiting)) or probes or before_pass or is_an_end:
            self._report(step, batch.epoch, figures, probes, report)
            is_told = self.notice.came_to_any()
            if done < self.total and (is_told or before_pass or self.save.due()):
                work, method = self.work, self.method
                save_checkpoint(work.run, done, work.identity, method, self.players, self.losses, self.makers)
                self.notice.let_through()

    def _report(self, step: int, epoch: int, figures: dict[str, Tensor], probes: bool, report: RunProgress) -> None:
        self.finite.check(step, self.method)
        rates = {f"lr/{name}": player.optimizer.param_groups[0]["lr"] for name, player in self.players.items()}
        shown = {name: float(value) for name, value in figures.items()} | self.method.scalars()
        shown |= self.pace.since_last()
        logged = {"epoch": epoch, "peak_memory_gb": round(peak_gb(), 3), **rates}
        if probes:
            probed = self.work.watch.probed(self.method, self.work.machine.device)
            report.tell(f"{self.work.title}  probe after step {step + 1}  {in_a_line(probed)}")
            logged |= {f"probe/{name}": value for name, value in probed.items()}
            self.pace.since_last()  # the steps did not take that time
        report.write(step, shown, logged, self.work.watch.normal(step, self.total))


def _begun(begin: Callable[[EmbedAll], None], recipe: Recipe, epoch: int, embed_all: EmbedAll) -> None:
    torch.manual_seed(mix(recipe.seed, Stream.EPOCH_START, epoch))  # not by rank: state stays equal
    begin(embed_all)


def train_step(method: Method, batch: Batch, players: Mapping[str, Player], precision: Precision) -> dict[str, Tensor]:
    """One step of every player; its losses by name, detached, the mean over processes."""
    figures: dict[str, Tensor] = {}
    losses = iter(method.losses(batch))
    while True:
        with autocast(batch.index.device.type, precision):
            given = next(losses, None)
        if given is None:
            break
        names, loss = checked_loss(given, players, method)
        stepped = [players[name] for name in names]
        for player in stepped:
            player.optimizer.zero_grad(set_to_none=True)
        loss.backward(inputs=[parameter for player in stepped for parameter in player.parameters])
        for player in stepped:
            player.averager.finish()
            player.step()
        title = f"loss/{names[0]}"
        figures[title if title not in figures else f"loss/{'+'.join(names)}"] = loss.detach().float()
    if not figures:
        raise UserError(f"{type(method).__name__}.losses gave no loss for a batch")
    distributed.average([*distributed.running_statistics(method), *figures.values()])
    return figures


def few_of_batch(recipe: Recipe) -> str:
    """What to say where a process's share of a batch is too few for BatchNorm."""
    share = recipe.batch_size // distributed.world_size()
    return (
        f"batch_size {recipe.batch_size} gives each process {share} at a time: set --recipe.batch-size to two for each "
        "process or more"
    )
