"""From a pretrained backbone to a record: runs one transfer."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch

from benchmark.backbones.norms import without_groups
from benchmark.backbones.weights import has_weights, load_backbone, read_facts
from benchmark.core import distributed
from benchmark.core.errors import UserError
from benchmark.core.files import file_hash, write_whole
from benchmark.core.memory import forget_peak, peak_in_words
from benchmark.core.mixed_precision import device_name
from benchmark.core.provenance import commit, versions
from benchmark.data.handover import lost_loader_told
from benchmark.engine.checkpoint import locked
from benchmark.engine.method_file import TrainedMethod, load_method
from benchmark.engine.progress import Display
from benchmark.engine.stretches import Maker
from benchmark.engine.train import Machine
from benchmark.recipe.catalogue import all_recipes
from benchmark.recipe.scales import is_read_at
from benchmark.records.folders import write_record
from benchmark.records.record import Record
from benchmark.runs.current import known_origin, transfer_now
from benchmark.runs.kept_work import kept_by
from benchmark.runs.report_page import write_report
from benchmark.runs.run import Run
from benchmark.runs.sound_data import checked_data
from benchmark.transfers.contract import Context, Transfer


def score(
    transfer: Transfer,
    run: Run,
    machine: Machine,
    engine: str | None = None,
    recipes_dir: Path | None = None,
    incomplete: bool = False,
) -> Record:
    """Run the transfer on the run's backbone and write its record, its picture and the run's report. recipes_dir: a
    folder of recipes besides the benchmark's, for a transfer that asks for the trained method. incomplete: data that is
    not complete may be scored at paper and photos scale; the record says so.

    Several processes of torchrun share the work; the first one writes.

    Raises UserError for a run that the protocol cannot score, a folder in use, a full disk, a backbone that does not
    load strictly, data that is missing or not sound (benchmark.runs.sound_data), or a metric that is not on the card or
    not finite. What was done until then is kept, and the next call goes on there.
    """
    started = time.monotonic()
    forget_peak()
    card = transfer.card
    if why := refusal(transfer, run):
        raise UserError(f"{run.backbone}: {why}; `sslbench list` shows what each transfer takes")
    title = f"{run.name} seed {run.seed}  {card.id}"
    with distributed.lost_process_told(), lost_loader_told(), locked(run.folder), _display(title) as report:
        with distributed.together():
            backbone, _ = load_backbone(run.backbone)
            without_groups(backbone)
            origin = known_origin(run)
            of_data = checked_data(transfer, run, origin, incomplete)
            now = transfer_now(transfer, run, engine)
            trained = _trained(run, origin, recipes_dir) if card.asks else None
        context = Context(
            data_root=run.data_root,
            scale=run.scale,
            seed=run.seed,
            workspace=run.workspace,
            device=machine.device,
            workers=machine.workers,
            report=report,
            engine=now.engine,
            trained=trained,
        )
        # asked before the work: a pull in the middle of it is not what did it
        code, used, device = commit(), versions(type(transfer)), device_name(machine.device)
        maker: Maker = {"commit": code, "versions": used, "device": device}
        distributed.require_same("code of the benchmark", used["sslbench code"])
        with distributed.together():
            makers = kept_by(run.workspace, maker) if distributed.rank() == 0 else [maker]
        scores = transfer.run(backbone, context)
        if scores.metrics.keys() != card.metrics.keys():
            raise UserError(f"{card.id}: gave {sorted(scores.metrics)}, its card promises {sorted(card.metrics)}")
        detail = {**scores.detail, "data_read": scores.data}
        detail |= {"engine": now.engine} if now.engine else {}
        if distributed.world_size() > 1 and transfer.depends_on_processes:
            detail["processes"] = distributed.world_size()
        detail |= {"kept_by": makers} if len(makers) > 1 else {}
        assert isinstance(now.data, dict)
        record = Record(
            recipe=run.name,
            recipe_hash=origin["recipe_hash"],
            settings=origin["resolved"],
            scale=run.scale,
            seed=run.seed,
            transfer=card.id,
            transfer_version=card.version,
            metrics=scores.metrics,
            detail=detail | of_data,
            transfer_data=now.data,
            origin={key: value for key, value in origin.items() if key != "resolved"},
            backbone_hash=now.backbone or "",
            commit=code,
            versions=used,
            device=device,
            threads=torch.get_num_threads(),
        )
        try:
            record.to_bytes()
        except ValueError as error:
            raise UserError(f"{card.id}: a score of {run.name} is not finite, so there is no result") from error
        with distributed.together():
            if distributed.rank() == 0:
                _write(record, scores.picture, run, started)
    if distributed.rank() == 0:
        print(f"{title}: {peak_in_words()}", flush=True)
    return record


def _write(record: Record, picture: bytes, run: Run, started: float) -> None:
    if picture:
        write_whole(run.folder / f"{record.transfer}.png", picture)
    write_report(run.folder, record)
    # last: once it is there, nothing is done again
    write_record(record, run.runs, time.monotonic() - started, distributed.world_size())
    for checkpoint in run.workspace.glob(f"{record.transfer}-*"):  # only now, or a record that fails would be lost
        checkpoint.unlink()


def refusal(transfer: Transfer, run: Run) -> str:
    """Why the protocol cannot score the run; empty where it can. The file says what it holds, which need not
    be what the recipe names: a method may export another network."""
    if not all(is_read_at(run.scale, name) for name, _ in transfer.card.datasets):
        return f"{transfer.card.id} reads data that nothing stands in for at {run.scale} scale"
    facts = read_facts(run.backbone)
    offered = facts["origin"].get("method", {}).get("offers", ())
    weightless = transfer.card.trains and not has_weights(run.backbone)
    return transfer.card.refusal(facts["architecture"]["is"], offered, weightless)


def _trained(run: Run, origin: dict[str, Any], recipes_dir: Path | None) -> TrainedMethod:
    """The run's own method, built by its recipe's class: a changed setting is in the file, not in the recipe."""
    if not run.method.is_file() or file_hash(run.method) != origin["method"]["hash"]:
        raise UserError(f"{run.method}: gone, or not this backbone's; delete {run.backbone} and pretrain again")
    name, known = run.name.partition("@")[0], all_recipes(recipes_dir)
    if name not in known:
        raise UserError(f"{run.method}: there is no recipe {name!r} to build it by; give its folder as --recipes-dir")
    return load_method(run.method, type(known[name].method))


def clear_workspace(run: Run) -> None:
    """For when every transfer has its record. Where another process is at work, the workspace is left to that."""
    with suppress(UserError), locked(run.folder):
        shutil.rmtree(run.workspace, ignore_errors=True)


@contextmanager
def _display(title: str) -> Iterator[Any]:
    """A Context.report that shows one bar, or one series of log lines, per thing that the transfer reports on."""
    shown: list[tuple[str, int, Display]] = []

    def report(what: str, done: int, total: int, figures: dict[str, float]) -> None:
        if distributed.rank() > 0:
            return
        if not shown or shown[-1][:2] != (what, total):
            close()
            shown.append((what, total, Display(f"{title}  {what}", total).__enter__()))
        shown[-1][2].update(done, figures)

    def close() -> None:
        if shown:
            shown[-1][2].__exit__(None, None, None)

    try:
        yield report
    finally:
        close()
