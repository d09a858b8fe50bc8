"""The one door: every command of `sslbench`.

Commands import what they need when they run, so that help and an up-to-date `reproduce` answer at once.
"""

from __future__ import annotations

import inspect
import math
import os
import re
import shlex
import signal
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NewType, cast, get_args, get_type_hints

from tyro.conf import Positional, arg
from tyro.extras import SubcommandApp

from benchmark.core.allocator import keep_freed_memory
from benchmark.core.errors import UserError
from benchmark.core.files import require_folder
from benchmark.core.flags import gathered
from benchmark.core.optimisation import Epochs, Span, Steps
from benchmark.core.processes import Terminated, raise_terminated
from benchmark.core.provenance import git_complaint, own_version
from benchmark.core.standard_streams import keep_writable, lost_output
from benchmark.data.unreadable import keep_lists_in
from benchmark.recipe.overrides import FLAG, given_once, override, renamed, span, split_flags
from benchmark.recipe.scales import DRAWN, Drawn, Scale

if TYPE_CHECKING:
    from benchmark.engine.train import Machine
    from benchmark.recipe.contract import Recipe
    from benchmark.runs.launchers import Slurm
    from benchmark.runs.own_images import OwnImages
    from benchmark.runs.run import Run

ScaleFlag = Annotated[
    Scale,
    arg(
        help="paper: real datasets; photos: small networks on Tiny ImageNet, an hour on two cores; desk: drawn data, "
        "minutes; smoke: seconds."
    ),
]
DataFlag = Annotated[
    Path | None, arg(help="Folder that holds the datasets. Without it, desk and smoke draw their own in data/<scale>.")
]
FileOrFolder = NewType("FileOrFolder", Path)  # all other paths of flags are folders
ImagesFlag = Annotated[
    FileOrFolder | None,
    arg(
        help="Your own images in the datasets' place: a folder (with classes: DIR/train/CLASS and DIR/val/CLASS, or "
        "DIR/CLASS), a list of files, a .zip, or .tar shards."
    ),
]
RUNS = Path("runs")
RunsFlag = Annotated[Path, arg(help="Folder for everything that runs write.")]
SeedFlag = Annotated[int, arg(help="Seed of every random number of the run.")]
WorkersFlag = Annotated[
    int | None,
    arg(
        help="Processes that load images, of all jobs together, for each process of torchrun; changes no result. By "
        "default as the cores allow, which torchrun's processes share: beside a GPU all but one, at most 32; on a CPU, "
        "where training needs them itself, a quarter, at least 2."
    ),
]
DeviceFlag = Annotated[str, arg(help="auto (a GPU if there is one), cpu or cuda.")]
RecipesFlag = Annotated[Path | None, arg(help="A folder of your own recipe files, besides the benchmark's.")]
TransfersFlag = Annotated[Path | None, arg(help="A folder of your own transfer files, besides the benchmark's.")]
IncompleteFlag = Annotated[
    bool,
    arg(help="At paper and photos scale: accept incomplete datasets; backbone file and record say what is missing."),
]
SET = "--set"
SetFlag = Annotated[
    tuple[str, ...],
    arg(
        name=SET.removeprefix("--"),
        metavar="KEY=VALUE",
        help="Settings of the recipe, KEY=VALUE; also --recipe.KEY VALUE, e.g. --recipe.batch-size 64",
    ),
]
LauncherFlag = Annotated[
    Literal["slurm"] | None,
    arg(help="slurm: submit jobs and return; they go on by themselves when they are preempted."),
]
SlurmFlag = Annotated[
    tuple[str, ...],
    arg(
        metavar="KEY=VALUE",
        help="With --launcher slurm: sbatch's long options, e.g. partition=gpu nodes=2 ntasks-per-node=8 "
        "gpus-per-node=8. A task is a process of pretraining, with a GPU of its own. time is in minutes, by "
        "default a day.",
    ),
]
RecipeName = Annotated[Positional[str], arg(metavar="RECIPE", help="A recipe's name; `sslbench list` shows them.")]

MORE_THAN_0 = math.ulp(0.0)
MOST_SEED = 2**32 - 1  # the most that numpy and scikit-learn take

app = SubcommandApp()
ABOUT = """Self-supervised visual representation learning, with every table reproducible by one command.

Start with `sslbench list`, then `sslbench reproduce RECIPE`: minutes on two cores, nothing to download.
`sslbench --version` says which sslbench this is."""


@app.command(name="list")
def list_(recipes_dir: RecipesFlag = None, transfers_dir: TransfersFlag = None) -> int:
    """Show every recipe and every transfer."""
    from tabulate import tabulate

    from benchmark.recipe.catalogue import all_recipes
    from benchmark.transfers import find_transfers

    recipes = [
        (name, r.title, f"{', '.join(pool.title for pool in r.pools.values())}, batch {r.batch_size}")
        for name, r in all_recipes(recipes_dir).items()
    ]
    cards = [transfer.card for transfer in find_transfers(transfers_dir).values()]
    transfers = [(card.id, f"v{card.version}", card.title, card.for_whom, ", ".join(card.metrics)) for card in cards]
    print(tabulate(recipes, headers=("recipe", "what", "pretraining"), tablefmt="simple"))
    print()
    print(tabulate(transfers, headers=("transfer", "", "what", "backbone", "scores"), tablefmt="simple"))
    return 0


@app.command
def plan(
    recipe: RecipeName,
    scale: ScaleFlag = "paper",
    processes: Annotated[
        int | None,
        arg(
            help="How many GPUs share the batch. Unless set, 8 at paper scale if they can share it evenly, otherwise 1."
        ),
    ] = None,
    data: DataFlag = None,
    num_images: Annotated[int | None, arg(help="Pretraining images, if other than the dataset's own number.")] = None,
    peak_tflops: Annotated[float, arg(help="Of one GPU; 156 is an A100's in TF32, by its data sheet.")] = 156.0,
    utilisation: Annotated[float, arg(help="Share of the peak that training reaches: a guess; measure yours.")] = 0.13,
    settings: SetFlag = (),
    recipes_dir: RecipesFlag = None,
) -> int:
    """Say what a run would be, without running it: steps, rates, memory, FLOPs, GPU-hours, and desk against paper."""
    from benchmark.runs.plan import Gpu, plan_text, usual_processes

    _in_range("--processes", processes, 1)
    _in_range("--num-images", num_images, 1)
    _in_range("--peak-tflops", peak_tflops, MORE_THAN_0)
    _in_range("--utilisation", utilisation, MORE_THAN_0, 1)
    _, chosen = _chosen(recipe, settings, recipes_dir, scale)
    _require_data(data)
    if num_images is None:
        _draw_world(scale, data, [chosen])  # whose images are counted
    gpu = Gpu(peak_tflops, utilisation)
    shared_by = usual_processes(chosen, scale) if processes is None else processes
    print(plan_text(chosen, scale, shared_by, num_images, data, gpu, recipes_dir))
    return 0


@app.command
def world(
    scale: ScaleFlag = "desk",
    data: DataFlag = None,
    seed: SeedFlag = 0,
    sheets: Annotated[Path | None, arg(help="Also write a contact sheet of each dataset to this folder.")] = None,
) -> int:
    """Draw Toyland, the stand-in for the real datasets, in their own layouts. Existing data is kept."""
    from benchmark.toyland import WORLD_DATASETS, build_world, contact_sheet

    if scale not in DRAWN:
        raise UserError(f"the {scale} scale reads real datasets; only {' and '.join(DRAWN)} have a drawn world")
    _in_range("--seed", seed, 0, MOST_SEED)
    if seed and data is None:
        raise UserError(f"--seed {seed} needs --data DIR: other commands keep data/{scale} drawn with seed 0")
    root = build_world(data or Path("data", scale), cast(Drawn, scale), seed)
    print(f"Toyland is in {root}")
    if sheets:
        for name in WORLD_DATASETS:
            print(contact_sheet(root, name, sheets / f"{name}.png"))
    return 0


@app.command
def doctor(
    data: Annotated[Path | None, arg(help="Folder that holds the datasets.")] = None,
    deep: Annotated[bool, arg(help="Decode every image too; runs will skip the unreadable ones.")] = False,
    runs: Annotated[Path, arg(help="Where the list of unreadable images goes if the data is read-only.")] = RUNS,
    images: ImagesFlag = None,
) -> int:
    """Check every dataset below a folder, or your own images, and say what to fix."""
    from benchmark.data.doctor import examine, examine_own, print_report

    if (data is None) == (images is None):
        raise UserError("give --data DIR, the folder that holds the datasets, or --images, your own; one of the two")
    keep_lists_in(runs)
    shown = sys.stderr.isatty()
    return print_report(examine(data, deep, shown) if data else examine_own(cast(Path, images), deep, shown))


@app.command
def propose(
    data: Annotated[Path, arg(help="Folder that holds the datasets.")],
    workers: Annotated[int, arg(help="How many images are searched at a time.")] = 1,
) -> int:
    """Find proposals in VOC2007 by OpenCV's selective search, for Fast R-CNN. Files that are there are kept."""
    from benchmark.data.selective_search import make_proposals

    _in_range("--workers", workers, 1)
    _require_data(data)
    for split in ("trainval", "test"):
        print(make_proposals(data, "voc2007", split, workers, progress=sys.stderr.isatty()))
    return 0


@app.command
def pretrain(
    recipe: RecipeName,
    scale: ScaleFlag = "desk",
    seed: SeedFlag = 0,
    data: DataFlag = None,
    runs: RunsFlag = RUNS,
    settings: SetFlag = (),
    workers: WorkersFlag = None,
    device: DeviceFlag = "auto",
    incomplete: IncompleteFlag = False,
    recipes_dir: RecipesFlag = None,
    images: ImagesFlag = None,
    init: Annotated[
        str | None, arg(metavar="NAME", help="Start from the weights of this run, at the same scale, or import.")
    ] = None,
    probe_every: Annotated[
        str | None,
        arg(
            metavar="N",
            help="Probe the backbone every N epochs, or Nsteps, and at the end, by its training images: nearest "
            "neighbours on held-out ones, RankMe, alignment, uniformity, share of collapsed dimensions.",
        ),
    ] = None,
    log_to: Annotated[
        tuple[str, ...], arg(help="wandb, mlflow or both: send all figures there, besides TensorBoard.")
    ] = (),
    launcher: LauncherFlag = None,
    slurm: SlurmFlag = (),
) -> int:
    """Pretrain one recipe. A run that was stopped resumes. For several GPUs: torchrun -m benchmark pretrain ...

    Changed settings give the run a name of its own, e.g. NAME@batch_size=64 for --recipe.batch-size 64; so do --images
    and --init.
    """
    given = dict(locals())
    from benchmark.core import distributed
    from benchmark.engine.trackers import require_trackers
    from benchmark.runs.current import is_pretrained
    from benchmark.runs.naming import backbones_before, require_init, require_untaken
    from benchmark.runs.pretraining import pretrain_run
    from benchmark.runs.run import Run

    _in_range("--seed", seed, 0, MOST_SEED)
    name, chosen = _chosen(recipe, settings, recipes_dir, scale)
    every = _probing(probe_every)
    require_trackers(log_to)
    if cluster := _launched(launcher, slurm, runs):
        job = cluster.submit(f"{name}_seed{seed}", partial(pretrain, **given | {"launcher": None, "slurm": ()}))
        print(f"job {job}: log {cluster.log(job)}")
        return 0
    machine = _machine(device, workers)
    keep_lists_in(runs)
    own = _own_images(images, data, runs)
    name, chosen = _called_after(name, chosen, own, init)
    run = Run(name, scale, seed, own.path if own else _data_root(scale, data), runs, init or "")
    _tell_of_git()
    resolved = run.resolved(chosen)
    require_untaken(run)
    require_init(run, recipes_dir)
    after = backbones_before(run, resolved, recipes_dir)
    with distributed.together():
        if distributed.rank() == 0 and not own:
            _draw_world(scale, data, [chosen])
    if not is_pretrained(run, resolved):
        pretrain_run(run, resolved, machine, after, incomplete, every, log_to)
    if distributed.rank() == 0:
        print(f"backbone: {run.backbone}")
        where = "".join(f" {word}" for word in _flags_to_find(run, images))
        if own.are_labelled if own else init:
            print(f"`sslbench transfer '{run.name}' TRANSFER{where}` scores it")
        if own:
            print(f"`sslbench features '{run.name}'{where}` shows what it makes of them")
    distributed.stop()
    return 0


@app.command(name="import")
def import_(
    file: Annotated[Positional[Path], arg(metavar="FILE", help="Weights of another project: pickled or safetensors.")],
    name: Annotated[str, arg(name="as", help="What the backbone is called here, as a recipe is.")],
    format: Annotated[
        str, arg(help="Whose layout the file has; auto: by its keys. A wrong name shows which there are.")
    ] = "auto",
    maps: Annotated[
        tuple[str, ...],
        arg(
            name="map",
            metavar="PREFIX=NEW",
            help="For other layouts: renames of whole keys, to come to torchvision's names of a ResNet.",
        ),
    ] = (),
    bgr: Annotated[bool, arg(help="The network was trained on blue, green, red, as Caffe2's were.")] = False,
    size: Annotated[int, arg(help="Side in pixels of the images that it is given.")] = 224,
    runs: RunsFlag = RUNS,
) -> int:
    """Take a backbone from a published checkpoint. Every transfer and table then takes its name; no code in it is run.

    What it was made from is in its file and in every record: the source's SHA-256, its format, the keys left out.
    """
    from benchmark.backbones.weights import save_backbone
    from benchmark.core.plain import on_one_line
    from benchmark.exchange.importing import AUTO, Wanted, import_backbone, parse_maps, replaced
    from benchmark.runs.naming import name_for_import
    from benchmark.runs.run import Run

    if maps and format != AUTO:
        raise UserError(f"--map and --format {format} contradict each other; give one")
    name_for_import(name, runs)
    path = Run(name, "paper", 0, runs, runs).imported  # the same at every scale and seed
    backbone, origin = import_backbone(file, Wanted(format, parse_maps(maps), bgr, size))
    if before := replaced(path, origin):
        print(before)
    save_backbone(path, backbone, origin)
    left_out = f"; left out: {', '.join(origin['dropped'])}" if origin["dropped"] else ""
    network, spec = on_one_line(backbone.architecture), backbone.input
    print(f"{network}, {spec.size} px, {spec.colour}; by format {origin['format']}{left_out}")
    print(f"backbone: {path}")
    print(f"`sslbench transfer {name} TRANSFER` scores it")
    return 0


@app.command
def transfer(
    recipe: RecipeName,
    transfers: Annotated[Positional[tuple[str, ...]], arg(metavar="TRANSFER", help="`sslbench list` shows them.")],
    scale: ScaleFlag = "desk",
    seed: SeedFlag = 0,
    data: DataFlag = None,
    runs: RunsFlag = RUNS,
    workers: WorkersFlag = None,
    device: DeviceFlag = "auto",
    engine: Annotated[str | None, arg(help="torchvision (default) or detectron2, where a protocol has both.")] = None,
    incomplete: IncompleteFlag = False,
    recipes_dir: RecipesFlag = None,
    transfers_dir: TransfersFlag = None,
    images: ImagesFlag = None,
) -> int:
    """Score a pretrained backbone, or an imported one, under one or more protocols.

    torchrun -m benchmark transfer ... shares the work between processes. On a frozen backbone scores stay the same.
    What trains the network comes out a little differently, and the record says on how many processes.
    With --images, protocols on ImageNet run on your own classes; tables list such scores by themselves.
    """
    from benchmark.core import distributed
    from benchmark.recipe.catalogue import all_recipes
    from benchmark.runs.current import is_scored
    from benchmark.runs.naming import require_backbone
    from benchmark.runs.run import Run
    from benchmark.runs.scoring import refusal, score
    from benchmark.transfers import find_transfers, get_transfer

    _in_range("--seed", seed, 0, MOST_SEED)
    known = find_transfers(transfers_dir)
    all_recipes(recipes_dir)  # whose files may define the architecture of what is scored
    if not transfers:
        raise UserError(f"name a TRANSFER to score {recipe} under; `sslbench list` shows all {len(known)}")
    chosen = [get_transfer(name, known) for name in transfers]
    machine = _machine(device, workers)
    keep_lists_in(runs)
    own = _own_images(images, data, runs)
    chosen = [one.on_own_images(own.label) for one in chosen] if own else chosen
    run = Run(recipe, scale, seed, own.path if own else _data_root(scale, data), runs)
    require_backbone(run, recipes_dir)
    if reasons := [why for one in chosen if (why := refusal(one, run))]:  # before the first takes its time
        raise UserError(f"{run.backbone}: {'; '.join(reasons)}; `sslbench list` shows what each transfer takes")
    _tell_of_git()
    is_first = distributed.rank() == 0
    with distributed.lost_process_told():
        with distributed.together():
            if is_first and not own:
                _draw_world(scale, data)
        for one in chosen:
            if not distributed.agree(is_first and is_scored(one, run, engine)):
                record = score(one, run, machine, engine, recipes_dir, incomplete)
                if is_first:
                    print("  ".join(f"{metric} {value:.2f}" for metric, value in record.metrics.items()))
            if is_first:
                print(f"record: {run.folder / one.card.id}.json")
    distributed.stop()
    return 0


@app.command
def reproduce(
    recipes: Annotated[Positional[tuple[str, ...]], arg(metavar="RECIPE", help="Besides the reference rows.")] = (),
    tables_of: Annotated[
        str | None, arg(metavar="PAPER", help="Run every row of this paper's tables, or of one table, by its key.")
    ] = None,
    scale: ScaleFlag = "desk",
    seeds: Annotated[tuple[int, ...], arg(help="Seeds to run each recipe with.")] = (0,),
    data: DataFlag = None,
    runs: RunsFlag = RUNS,
    jobs: Annotated[
        int | None,
        arg(help="Rows at a time, each on its share of the cores. By default 1 at paper scale and on a GPU, else 2."),
    ] = None,
    workers: WorkersFlag = None,
    device: DeviceFlag = "auto",
    incomplete: IncompleteFlag = False,
    recipes_dir: RecipesFlag = None,
    transfers_dir: TransfersFlag = None,
    launcher: LauncherFlag = None,
    slurm: SlurmFlag = (),
) -> int:
    """From nothing to the tables: draw the data, pretrain, transfer, print. What is current is not run again.

    With --launcher slurm each row is a job, and a last one writes the tables: the same command without it shows them.
    """
    from benchmark.runs.request import Request, selected

    for seed in seeds:
        _in_range("--seeds", seed, 0, MOST_SEED)
    _in_range("--jobs", jobs, 1)
    names, scored_on, filled = selected(recipes, tables_of)
    root, unique = _data_root(scale, data), tuple(dict.fromkeys(seeds))
    keep_lists_in(runs)
    cluster = _launched(launcher, slurm, runs)
    request = Request(names, scored_on, filled, scale, unique, root, runs, recipes_dir, transfers_dir, incomplete)
    if request.is_answered():
        print(request.shown())
        print("Nothing has changed since they were written.")
        return 0

    from benchmark.runs.reproduce import fulfil

    _tell_of_git()
    make_world = None if data else partial(_draw_world, scale, data)
    if cluster:
        from benchmark.runs.row_jobs import submit_rows

        if jobs:
            raise UserError("--jobs is for rows side by side on this machine; leave it out with --launcher slurm")
        submit_rows(request, cluster, partial(_machine, device, workers), make_world)
        return 0
    return 0 if fulfil(request, _machine(device, workers), jobs, make_world) else 1


@app.command
def tables(
    write: Annotated[
        bool, arg(help="Write leaderboards/*.md, from published records alone, and the generated pages of docs/.")
    ] = False,
    scale: ScaleFlag = "desk",
    data: DataFlag = None,
    runs: RunsFlag = RUNS,
    recipes_dir: RecipesFlag = None,
    transfers_dir: TransfersFlag = None,
    beside: Annotated[
        tuple[str, ...],
        arg(name="with", metavar="NAME", help="Give these a row in every table that shows a transfer they have."),
    ] = (),
) -> int:
    """Show reported and measured numbers side by side: current runs, and published records where there is no run.

    They are shown in short: a line for each measured row, and Kendall's τ. The whole tables go below RUNS/SCALE.
    At paper and photos scale, runs count only with --data: without it their data cannot be checked.
    """
    if write:
        from benchmark.gate.pages import write_pages
        from benchmark.tables.ledger import leaderboards_to_write

        ignored = {"--scale": scale != "desk", "--data": data, "--runs": runs != RUNS}
        ignored |= {"--recipes-dir": recipes_dir, "--transfers-dir": transfers_dir, "--with": bool(beside)}
        _refuse_ignored("--write shows published records alone", ignored)
        leaderboards_to_write()
        _print_each(write_pages())
        return 0

    from benchmark.recipe.catalogue import all_recipes
    from benchmark.runs.reproduce import write_tables
    from benchmark.transfers import find_transfers

    root = None if data is None and scale not in DRAWN else _data_root(scale, data)
    keep_lists_in(runs)
    text = write_tables(all_recipes(recipes_dir), find_transfers(transfers_dir), root, runs, scale, beside)
    print(text or f"No number at {scale} scale: no current run in {runs.resolve()}, and nothing published")
    return 0


@app.command
def check(
    scale: Annotated[Scale | None, arg(help="Only this scale; without it, all.")] = None,
    runs: RunsFlag = RUNS,
    data: DataFlag = None,
    accept: Annotated[bool, arg(help="Write leaderboards/expected.csv from the published records instead.")] = False,
) -> int:
    """The regression gate: say which numbers moved and by how much, which records are bad or stale; exit 1 if any
    moved or is bad.

    Fresh runs are compared with leaderboards/expected.csv, published records where there is no run.
    """
    from benchmark.core.files import write_whole
    from benchmark.gate.check import EXPECTED, accepted, all_findings, findings_text
    from benchmark.gate.staleness import data_below
    from benchmark.gate.targets import expected_csv, without_target
    from benchmark.tables.ledger import leaderboards_to_write
    from benchmark.transfers import find_transfers

    cards = {name: transfer.card for name, transfer in find_transfers().items()}
    if accept:
        _refuse_ignored(
            "--accept takes every published record", {"--scale": scale, "--runs": runs != RUNS, "--data": data}
        )
        folder = leaderboards_to_write()
        expected = accepted(folder, cards)
        write_whole(folder / EXPECTED, expected_csv(expected).encode())
        print("\n".join([*without_target(expected), str(folder / EXPECTED)]))
        return tables(write=True)
    keep_lists_in(runs)
    findings = all_findings(runs, scale, cards, data_below(lambda of: data or Path("data", of)))
    print(findings_text(findings))
    return int(any(one.fails for one in findings))


@app.command
def show(method: Annotated[Positional[str], arg(metavar="METHOD", help="By any of its names.")]) -> int:
    """One method's card: what papers report, what was measured, when, and by which commit."""
    from benchmark.gate.check import flagged
    from benchmark.tables.method_page import method_page
    from benchmark.tables.pages import shown_records

    records = shown_records()
    print(method_page(method, records, flagged(records)))
    return 0


@app.command
def export(
    what: Annotated[
        Positional[str], arg(metavar="NAME|DIR", help="With --to, a backbone's name; else the folder for the tables.")
    ],
    to: Annotated[
        str | None, arg(help="The library that shall read the backbone. A wrong name shows which there are.")
    ] = None,
    into: Annotated[Path, arg(help="Folder for the backbone.")] = Path("exported"),
    scale: ScaleFlag = "desk",
    seed: SeedFlag = 0,
    runs: RunsFlag = RUNS,
    recipes_dir: RecipesFlag = None,
) -> int:
    """Write a backbone for another library, or all that the tables are made of.

    With --to, the file that another library loads, such as torchvision. Else every table as CSV, JSON, LaTeX and
    Parquet, and all records and the ledger as one Parquet file each.
    """
    if to is None:
        ignored: dict[str, object] = {"--into": into != Path("exported"), "--scale": scale != "desk", "--seed": seed}
        ignored |= {"--runs": runs != RUNS, "--recipes-dir": recipes_dir}
        _refuse_ignored("these are for a backbone, with --to", ignored)
        return _export_tables(Path(what))

    from benchmark.backbones.weights import load_backbone
    from benchmark.exchange.exporting import export_backbone, load_hint
    from benchmark.recipe.catalogue import all_recipes
    from benchmark.runs.naming import require_backbone
    from benchmark.runs.run import Run

    all_recipes(recipes_dir)  # whose files may define the architecture
    run = Run(what, scale, seed, runs, runs)
    require_backbone(run, recipes_dir)
    backbone, _ = load_backbone(run.backbone)
    path = export_backbone(backbone, to, into, what)
    print(f"{path}\n{load_hint(backbone, to, path)}")
    return 0


@app.command
def features(
    recipe: Annotated[Positional[str], arg(metavar="NAME", help="Of a run or an imported backbone.")],
    images: ImagesFlag = None,
    to: Annotated[
        FileOrFolder | None, arg(metavar="FILE", help="Ends in .npz or .parquet; pictures go beside it.")
    ] = None,
    scale: ScaleFlag = "desk",
    seed: SeedFlag = 0,
    runs: RunsFlag = RUNS,
    workers: WorkersFlag = None,
    device: DeviceFlag = "auto",
    recipes_dir: RecipesFlag = None,
) -> int:
    """Write a backbone's features of your own images, with two pictures: a map by t-SNE, and nearest neighbours."""
    from benchmark.core.files import write_whole
    from benchmark.recipe.catalogue import all_recipes
    from benchmark.runs.feature_pictures import map_picture, neighbours_picture, no_map_because
    from benchmark.runs.image_features import check_suffix, features_of, write_features
    from benchmark.runs.naming import require_backbone
    from benchmark.runs.run import Run

    _in_range("--seed", seed, 0, MOST_SEED)
    own = _own_images(images, None, runs)
    if own is None:
        raise UserError("give --images, whose features these shall be: a folder, a list of files, a .zip or a .tar")
    path = to or Path("features", f"{recipe}.npz")
    check_suffix(path)
    all_recipes(recipes_dir)  # whose files may define the architecture
    machine = _machine(device, workers)
    keep_lists_in(runs)
    run = Run(recipe, scale, seed, own.path, runs)
    require_backbone(run, recipes_dir)
    found = features_of(run, own.opened("all"), machine)
    write_features(found, path)
    print(f"{path}: {found.values.shape[0]:,} images, {found.values.shape[1]:,} numbers each")
    sheet, of_all = path.with_suffix(".neighbours.png"), path.with_suffix(".map.png")
    write_whole(sheet, neighbours_picture(found))
    print(sheet)
    if why := no_map_because(found):
        print(f"no map: {why}")
    else:
        write_whole(of_all, map_picture(found, seed))
        print(of_all)
    return 0


def _export_tables(folder: Path) -> int:
    from benchmark.core.files import write_whole
    from benchmark.gate.check import current_boards
    from benchmark.tables.export import export_files
    from benchmark.tables.parquet import parquet_files

    require_folder(folder, "DIR")
    boards = current_boards()
    texts = {name: text.encode() for name, text in export_files(boards).items()}
    for name, content in (texts | parquet_files(boards)).items():
        write_whole(folder / name, content)
        print(folder / name)
    return 0


@app.command
def leaderboards(folder: Annotated[Positional[Path], arg(metavar="DIR", help="Where the site goes.")]) -> int:
    """Write leaderboards/*.md, as `tables --write` does, and in DIR the same as a site that opens without a network.

    An installed copy, whose own leaderboards stay as they are, writes the site alone.
    """
    from benchmark.gate.pages import write_pages

    require_folder(folder, "DIR")
    _print_each(write_pages(folder))
    print(folder / "index.html")
    return 0


@app.command
def speed(
    recipe: RecipeName,
    scale: ScaleFlag = "desk",
    rounds: Annotated[int, arg(help="Steps to time; the median counts.")] = 20,
    data: DataFlag = None,
    settings: SetFlag = (),
    workers: WorkersFlag = None,
    device: DeviceFlag = "auto",
    recipes_dir: RecipesFlag = None,
) -> int:
    """Measure images per second: the data path, the whole step, and the bare backbone on the same tensors."""
    from benchmark.runs.run import Run, pretraining_images
    from benchmark.runs.speed import speed_text

    _in_range("--rounds", rounds, 1)
    name, chosen = _chosen(recipe, settings, recipes_dir, scale)
    machine = _machine(device, workers)
    _draw_world(scale, data, [chosen])
    run = Run(name, scale, 0, _data_root(scale, data), RUNS)
    resolved = run.resolved(chosen)
    print(speed_text(resolved, pretraining_images(resolved, run.data_root), machine, rounds))
    return 0


@app.command
def publish(
    runs: Annotated[Positional[tuple[Path, ...]], arg(help="Run folders, like runs/desk/<recipe>/seed0.")],
    allow_dirty: Annotated[bool, arg(help="Publish records of code that is in no commit too.")] = False,
) -> int:
    """Copy the records of runs to leaderboards/measured, to be committed, and write the leaderboards again.

    `sslbench check --accept` then makes them the regression gate's targets; until then tables mark them.
    """
    from benchmark.records.publish import publish_run
    from benchmark.tables.ledger import leaderboards_to_write

    if not runs:
        raise UserError("name a run's folder, like runs/desk/<recipe>/seed0; `sslbench tables --write` publishes none")
    measured = leaderboards_to_write() / "measured"
    for folder in runs:
        require_folder(folder, "DIR")
    for folder in runs:
        for path in publish_run(folder, measured, allow_dirty):
            print(path)
    return tables(write=True)


def _print_each(paths: Sequence[Path]) -> None:
    for path in paths:
        print(path)


def _chosen(name: str, settings: Sequence[str], folder: Path | None, scale: Scale) -> tuple[str, Recipe]:
    """(what the run is called, the recipe with its changes)."""
    from benchmark.runs.naming import recipe_called

    changes = given_once(settings)
    return renamed(name, changes), override(recipe_called(name, folder), changes, scale)


def _called_after(name: str, recipe: Recipe, own: OwnImages | None, init: str | None) -> tuple[str, Recipe]:
    """(what the run is called, the recipe on these images)."""
    from benchmark.runs.own_images import called, recipe_on

    if own:
        name, recipe = called(name, "images", own.label), recipe_on(recipe, own)
    return (called(name, "init", init) if init else name), recipe


def _probing(text: str | None) -> Span | None:
    """What --probe-every says. Raises UserError for what is no length, or none at all."""
    try:
        every = span(text) if text else None
    except (UserError, ValueError) as error:
        raise UserError(f"--probe-every takes epochs or steps, e.g. 1, 0.5 or 500steps, not {text!r}") from error
    if every in (Epochs(0), Steps(0)):
        raise UserError(f"--probe-every must be more than 0, not {text}")
    return every


def _in_range(flag: str, value: float | None, least: float, most: float = math.inf) -> None:
    if value is None:  # not given
        return
    if not least <= value <= most or value == math.inf:
        least_told = "more than 0" if least == MORE_THAN_0 else f"{least} or more"
        raise UserError(f"{flag} must be {least_told}{f', at most {most}' if most < math.inf else ''}, not {value}")


def _refuse_ignored(why: str, given: Mapping[str, object]) -> None:
    """given: flag -> whether it was given."""
    if flags := ", ".join(flag for flag, is_given in given.items() if is_given):
        raise UserError(f"{why}; leave out {flags}")


def _tell_of_git() -> None:
    """Once, by the process that the user started: its children would each say it again."""
    if int(os.environ.get("RANK", "0")) == 0 and (complaint := git_complaint()):
        print(f"sslbench: {complaint}", file=sys.stderr)


def _machine(device: str, workers: int | None) -> Machine:
    import torch

    from benchmark.core import distributed
    from benchmark.core.processes import default_loaders
    from benchmark.engine.train import Machine

    _in_range("--workers", workers, 0)
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", device):
        raise UserError(f"--device must be auto, cpu, cuda or cuda:NUMBER, not {device!r}")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    on = distributed.start(device)
    return Machine(on, default_loaders(on.type == "cuda") if workers is None else workers)


def _launched(launcher: str | None, options: Sequence[str], runs: Path) -> Slurm | None:
    from benchmark.runs.launchers import slurm

    if launcher is None:
        _refuse_ignored("--slurm is for --launcher slurm", {"--slurm": options})
        return None
    return slurm(options, runs)


def _data_root(scale: Scale, data: Path | None) -> Path:
    if data is None and scale not in DRAWN:
        raise UserError(f"--scale {scale} reads real datasets: give --data DIR, the folder that holds them")
    _require_data(data)
    return data or Path("data", scale)


def _flags_to_find(run: Run, images: Path | None) -> Iterator[str]:
    """What `transfer` and `features` must be given besides its name to find this run, and the images that it is on."""
    yield from () if run.scale == "desk" else ("--scale", run.scale)
    yield from ("--seed", f"{run.seed}") if run.seed else ()
    yield from ("--images", shlex.quote(str(images))) if images else ()
    yield from ("--runs", shlex.quote(str(run.runs))) if run.runs != RUNS else ()


def _own_images(images: Path | None, data: Path | None, runs: Path) -> OwnImages | None:
    from benchmark.runs.own_images import own_images

    if images and data:
        raise UserError(f"--images {images} takes the place of the datasets in --data {data}; give one of the two")
    return own_images(images, runs) if images else None


def _require_data(data: Path | None) -> None:
    if data is not None and not data.is_dir():
        raise UserError(f"--data {data}: there is no such folder")


def _draw_world(scale: Scale, data: Path | None, recipes: Iterable[Recipe] = ()) -> None:
    """Make sure that the drawn data is there, and what these recipes alone train on, unless the user brought data."""
    if data is None and scale in DRAWN:
        from benchmark.toyland import build_world, drawn_for

        asked = {pool.dataset for recipe in recipes for pool in recipe.pools.values()}
        build_world(_data_root(scale, data), cast(Drawn, scale), datasets=drawn_for(asked))


def _flags_of(command: str) -> Mapping[str, Any]:
    """Flag -> type of its parameter; nothing for a word that is no command."""
    function = globals().get(command) or globals().get(f"{command}_")  # list_ and import_
    if not inspect.isfunction(function):
        return {}
    hints, told = get_type_hints(function), get_type_hints(function, include_extras=True)
    return {f"--{_flag_name(name, told[name])}": hint for name, hint in hints.items()}


def _flag_name(parameter: str, hint: Any) -> str:
    """As `arg(name=...)` calls it, or as the parameter is called."""
    given = (getattr(one, "name", None) for one in getattr(hint, "__metadata__", ()))
    return next(filter(None, given), parameter.replace("_", "-"))


def _paths(words: Sequence[str], hints: Mapping[str, Any]) -> Iterator[tuple[str, Path]]:
    """(flag, path) of each flag that takes a folder."""
    for flag, _, value in (word.partition("=") for word in words):
        if value and Path in (hints.get(flag), *get_args(hints.get(flag))):
            yield flag, Path(value)


def run(arguments: Sequence[str]) -> int:
    """Exit status of one command: 0 done, 1 something failed, 2 bad input, 130 interrupted, 143 ended by SIGTERM."""
    if list(arguments) == ["--version"]:
        print(f"sslbench {own_version()}")
        _tell_of_git()
        return 0
    try:
        _refuse_torchrun(arguments)
        others, changes = split_flags(arguments)
        hints = _flags_of(others[0] if others else "")
        if changes and SET not in hints:
            raise UserError(
                f"{FLAG}{changes[0][0]}: this command takes no settings of a recipe, `sslbench pretrain` does"
            )
        flags = [word for key, text in changes for word in (SET, f"{key}={text}")]
        words = gathered([*others, *flags], hints)
        for flag, path in _paths(words, hints):
            require_folder(path, flag)
        return app.cli(prog="sslbench", description=ABOUT, args=words)
    except UserError as error:
        print(f"sslbench: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stop:
        print("sslbench: stopped; the same command picks up where this one left off", file=sys.stderr)
        return 128 + (signal.SIGTERM if isinstance(stop, Terminated) else signal.SIGINT)


def _refuse_torchrun(arguments: Sequence[str]) -> None:
    """Of other commands, its processes would do the same work in the same folders."""
    command = arguments[0] if arguments else ""
    shares = ("pretrain", "transfer")
    if "RANK" in os.environ and int(os.environ.get("WORLD_SIZE", 1)) > 1 and command not in shares:
        those = " and ".join(shares)
        raise UserError(f"`sslbench {command}` runs in one process: start it without torchrun, which is for {those}")


def main() -> None:
    """Entry point of the command."""
    keep_writable()
    keep_freed_memory()
    signal.signal(signal.SIGTERM, raise_terminated)
    try:
        status: object = run(sys.argv[1:])
    except SystemExit as end:  # of --help, or of flags that are wrong
        status = end.code
    if lost := lost_output():
        print(f"sslbench: not all output could be written ({lost}); the work itself went on", file=sys.stderr)
        status = status or 1
    sys.exit(status)  # type: ignore[arg-type]
