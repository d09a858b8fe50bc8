"""k-means against a plain one, whitening by its formula; DeepCluster's epochs; Jigsaw++ and what comes after what."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import faiss
import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import adjusted_rand_score
from small_runs import RECIPES, drawn_images, in_processes, on_cpu, run, run_and_die, untrained_before

from benchmark import cli
from benchmark.backbones.weights import load_backbone, read_facts, save_backbone
from benchmark.blocks.clustering import best_kmeans, clusters_of_all, kmeans, uniform_over_clusters, whitened
from benchmark.blocks.permutations import permutation_set
from benchmark.core import distributed
from benchmark.core.errors import UserError
from benchmark.data.batch import Batch
from benchmark.engine import train
from benchmark.engine.train import pretrain
from benchmark.gate.staleness import not_good, now_of
from benchmark.method import Method
from benchmark.recipe.catalogue import find_recipes
from benchmark.recipe.contract import recipe_hash
from benchmark.recipe.inputs import InputSpec
from benchmark.records.record import read_record
from benchmark.runs.current import is_pretrained
from benchmark.runs.reproduce import RowWork, bring_up_to_date, runs_needed
from benchmark.runs.run import Run
from benchmark.runs.side_by_side import side_by_side
from benchmark.toyland import build_world

DEEPCLUSTER, STUDENT = RECIPES["deepcluster"], RECIPES["cc_jigsaw_pp"]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory):
    return drawn_images(tmp_path_factory.mktemp("images"))


def blobs(count: int, groups: int, dim: int = 8) -> tuple[torch.Tensor, np.ndarray]:
    rng = np.random.default_rng(0)
    group = rng.integers(groups, size=count)
    x = 10 * rng.standard_normal((groups, dim))[group] + rng.standard_normal((count, dim))
    return torch.from_numpy(x.astype(np.float32)), group


# The block


def test_kmeans_is_lloyds_algorithm_from_the_same_start():
    x = torch.randn(400, 8, generator=torch.Generator().manual_seed(0))  # no groups: far from its end after 7 rounds
    k, iterations, seed = 12, 7, 3
    rows = x.double().numpy()
    centres = rows[torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))[:k].numpy()]
    for _ in range(iterations):
        nearest = ((rows[:, None] - centres) ** 2).sum(axis=2).argmin(axis=1)
        centres = np.stack([rows[nearest == c].mean(axis=0) for c in range(k)])
    nearest = ((rows[:, None] - centres) ** 2).sum(axis=2).argmin(axis=1)
    found, means = kmeans(x, k, iterations, seed)
    assert np.array_equal(found.numpy(), nearest)
    np.testing.assert_allclose(means.numpy(), centres, atol=1e-4)
    again, same = kmeans(x, k, iterations, seed)
    assert torch.equal(found, again)
    assert torch.equal(means, same)
    assert not torch.equal(found, kmeans(x, k, iterations, seed + 1)[0])


def test_of_several_starts_the_best_counts():
    x = torch.randn(200, 4, generator=torch.Generator().manual_seed(0))
    found = [kmeans(x, 9, 3, seed) for seed in range(6)]
    squares = [sum(float((x[i] - centres[s[i]]).norm()) ** 2 for i in range(len(x))) for s, centres in found]
    best = int(np.argmin(squares))
    assert best not in (0, 5), "else the first or the last would do"
    labels, centres = best_kmeans(x, 9, 3, range(6))
    assert torch.equal(labels, found[best][0])
    assert torch.equal(centres, found[best][1])


def test_two_far_groups_are_found_whole():
    x, group = blobs(300, 2)
    assert adjusted_rand_score(group, kmeans(x, 2, 20, 0)[0]) == 1.0


@pytest.mark.parametrize("x", [torch.zeros(50, 4), torch.randn(50, 4).sign(), blobs(50, 3)[0]], ids=["0", "16", "far"])
def test_no_cluster_is_empty_even_where_fewer_rows_differ(x: torch.Tensor):
    """Of 50 rows that are all the same, of at most 16 that differ, and of three far groups."""
    for k in (1, 30, 50):
        labels, centres = kmeans(x, k, 5, 0)
        assert torch.bincount(labels, minlength=k).min() >= 1
        assert centres.shape == (k, 4 if x.shape[1] == 4 else 8)
        assert centres.isfinite().all()


def test_more_clusters_than_images_are_refused():
    with pytest.raises(UserError, match="51 clusters of 50 images"):
        kmeans(torch.randn(50, 4), 51, 5, 0)


def test_whitened_components_are_uncorrelated_and_as_faiss_has_them():
    x = torch.randn(500, 12, generator=torch.Generator().manual_seed(0)) @ torch.diag(torch.arange(1.0, 13.0)) + 5
    theirs = faiss.PCAMatrix(12, 5, -0.5)
    theirs.train(x.numpy())
    other = theirs.apply(x.numpy())
    ours = whitened(x.clone(), 5)
    torch.testing.assert_close(ours.T @ ours / len(ours), torch.eye(5), atol=1e-3, rtol=0)
    torch.testing.assert_close(ours.mean(dim=0), torch.zeros(5), atol=1e-4, rtol=0)
    cosine = torch.nn.functional.cosine_similarity(ours, torch.from_numpy(other), dim=0)
    torch.testing.assert_close(cosine.abs(), torch.ones(5), atol=1e-4, rtol=0)  # a component's sign is anyone's


def test_whitening_leaves_out_what_does_not_vary():
    flat = torch.cat([torch.randn(100, 3), torch.full((100, 4), 7.0)], dim=1)
    assert whitened(flat, 5).shape == (100, 3)
    assert whitened(torch.randn(6, 40), 32).isfinite().all(), "six rows span five directions"


def test_an_epoch_is_uniform_over_clusters():
    labels = torch.cat([torch.zeros(700), torch.ones(290), torch.full((10,), 3.0)]).long()  # none in 2
    drawn = uniform_over_clusters(labels, seed=5)
    assert drawn.shape == (1000,)
    counts = torch.bincount(labels[drawn], minlength=4)
    assert counts[2] == 0
    assert counts[[0, 1, 3]].sub(1000 / 3).abs().max() <= 2
    assert len(drawn[labels[drawn] == 0].unique()) == counts[0], "none of a large cluster comes twice"
    assert torch.equal(drawn, uniform_over_clusters(labels, seed=5))
    assert not torch.equal(drawn, uniform_over_clusters(labels, seed=6))


def test_all_processes_have_the_clusters_of_the_first():
    outcomes = in_processes(2, _own_clusters)
    assert [outcome.error for outcome in outcomes] == [None, None]
    assert [outcome.value for outcome in outcomes] == [[2, 1, 0], [2, 1, 0]]


def _own_clusters() -> list[int]:
    features = [(torch.tensor([1, 0]), torch.tensor([[1.0], [2.0]])), (torch.tensor([2]), torch.tensor([[0.0]]))]

    def cluster(x: torch.Tensor) -> torch.Tensor:
        assert distributed.rank() == 0
        return x[:, 0].long()

    return clusters_of_all(iter(features), 3, cluster).tolist()


def test_permutations_stay_apart_when_asked():
    chosen = permutation_set(150, least_distance=3)
    distances = (chosen[:, None] != chosen).sum(axis=2)
    assert distances[~np.eye(150, dtype=bool)].min() == 3
    assert distances[~np.eye(150, dtype=bool)].mean() > 8


def test_more_permutations_than_there_are_are_refused():
    """No ten permutations of nine tiles differ in all places: a tile would have to lie in ten."""
    with pytest.raises(UserError, match=r"only [3-9] permutations of 9 tiles .* in 9 places or more; .* not 10"):
        permutation_set(10, least_distance=9)


# DeepCluster


def method_after(recipe, images, folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, torch.Tensor]]:
    """The method's state before each step of a run."""
    states: list[dict[str, torch.Tensor]] = []
    step = train.train_step

    def noted(method: Method, *arguments):
        states.append({name: value.clone() for name, value in method.state_dict().items()})
        return step(method, *arguments)

    monkeypatch.setattr(train, "train_step", noted)
    pretrain(recipe, "small", images, folder, on_cpu(checkpoint_seconds=60), untrained_before(recipe, images))
    return states


def test_each_epoch_has_new_clusters_and_a_new_classifier(images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    states = method_after(DEEPCLUSTER, images, tmp_path, monkeypatch)
    first, second, third, fourth = states  # an epoch is three steps
    assert torch.bincount(first["y"], minlength=40).min() >= 1
    assert torch.equal(first["y"], third["y"])
    assert not torch.equal(third["y"], fourth["y"])
    assert first["order_seed"] == third["order_seed"] != fourth["order_seed"]
    assert second["top.bias"].any(), "the classifier learns,"
    assert not fourth["top.bias"].any(), "and begins anew"
    assert fourth["top.weight"].std() == pytest.approx(0.01, rel=0.1)
    assert not torch.equal(first["backbone.layers.conv1.1.weight"], second["backbone.layers.conv1.1.weight"])


def test_deepcluster_goes_on_in_the_middle_of_an_epoch(images, tmp_path: Path):
    whole = run(DEEPCLUSTER, images, tmp_path / "whole", on_cpu(checkpoint_seconds=60))
    [died] = in_processes(1, run_and_die, DEEPCLUSTER, images, tmp_path / "killed", on_cpu(), 2, 10.0)
    assert died.exit_code == -9
    assert (tmp_path / "killed/checkpoint.pt").is_file()
    assert run(DEEPCLUSTER, images, tmp_path / "killed", on_cpu()) == whole


def test_deepclusters_features_are_those_before_the_last_relu(images):
    torch.manual_seed(0)
    backbone = DEEPCLUSTER.backbone.build(DEEPCLUSTER.input)
    method = DEEPCLUSTER.method.build(backbone, train.given_of({"main": images}, {})).eval()
    view = torch.randint(0, 256, (4, 3, 64, 64), dtype=torch.uint8)
    embedded = method.embed(Batch({"image": view}, torch.arange(4), seed=0))
    assert (embedded < 0).any()
    torch.testing.assert_close(embedded.clamp_min(0), backbone(backbone.input.prepare(view)))


# Jigsaw++


def test_a_puzzle_has_up_to_two_tiles_of_another_image():
    settings = replace(find_recipes()["jigsaw_pp"].method, grey=0.0, P=20)
    colours = {0: (200, 0, 0), 1: (0, 0, 200)}
    seen = []
    for seed in range(60):
        torch.manual_seed(seed)
        made = settings.sample(lambda i: Image.new("RGB", (300, 260), colours[0 if i == 0 else 1]), 0, InputSpec(64))
        assert made["tiles"].shape == (9, 3, 64, 64)
        seen.append(int((made["tiles"][:, 2] > 0).any(dim=(1, 2)).sum()))
    assert set(seen) == {0, 1, 2}


def test_an_image_of_any_number_can_be_opened(images, tmp_path: Path):
    """Numbers go round: the pretext draws its other image so."""
    assert len(run(RECIPES["jigsaw_pp"], images, tmp_path, on_cpu(checkpoint_seconds=60))) > 0


def test_the_students_labels_are_the_teachers_clusters(images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Its features computed here once more, by torch alone."""
    settings = STUDENT.method
    states = method_after(replace(STUDENT, precision="fp32"), images, tmp_path, monkeypatch)
    assert torch.equal(states[0]["y"], states[-1]["y"])
    assert not [name for name in states[0] if "given" in name or "teacher" in name]
    teacher = load_backbone(untrained_before(STUDENT, images)["teacher"])[0].eval()
    rows = []
    for number in range(len(images)):
        x = teacher.input.prepare(settings.still(images.open(number), STUDENT.input)["image"][None])
        x = 50 * (x - x.mean()) / x.std(correction=0)
        with torch.no_grad():
            maps = teacher.forward_stages(x)["conv4"]
        rows.append(torch.nn.functional.adaptive_max_pool2d(maps, 4).flatten())
    x = torch.nn.functional.normalize(torch.stack(rows))
    torch.manual_seed(train.mix(STUDENT.seed, train.Stream.EPOCH_START, 0))
    expected = kmeans(x, settings.clusters, settings.iterations, int(torch.randint(1 << 31, ())))[0]
    assert adjusted_rand_score(states[0]["y"], expected) > 0.99  # batches of another size may move a last bit


@pytest.mark.parametrize("stage", ["conv9", "res4"])
def test_a_layer_that_the_teacher_lacks_is_told_before_it_is_asked(images, stage: str):
    teacher = load_backbone(untrained_before(STUDENT, images)["teacher"])[0]
    given = replace(train.given_of({"main": images}, {}), backbones={"teacher": teacher})
    with pytest.raises(UserError, match=f"method.stage '{stage}' is no map of the teacher's; it has conv1, .*, conv5"):
        replace(STUDENT.method, stage=stage).build(STUDENT.backbone.build(STUDENT.input), given)


def test_a_student_goes_on_without_its_teacher_in_the_checkpoint(images, tmp_path: Path):
    whole = run(STUDENT, images, tmp_path / "whole", on_cpu(checkpoint_seconds=60))
    [died] = in_processes(1, run_and_die, STUDENT, images, tmp_path / "killed", on_cpu(), 2, 10.0)
    assert died.exit_code == -9
    saved = torch.load(tmp_path / "killed/checkpoint.pt", weights_only=True)["method"]
    assert {name.split(".")[0] for name in saved} == {"backbone", "fc8", "y"}
    assert run(STUDENT, images, tmp_path / "killed", on_cpu()) == whole


# What comes after what


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_world(tmp_path_factory.mktemp("world"), "smoke", datasets=("imagenet",), progress=False)


def test_without_its_teacher_the_command_that_makes_it_is_named(world: Path, tmp_path: Path, capsys):
    command = [
        "pretrain",
        "cc_jigsaw_pp",
        "--scale",
        "smoke",
        "--seed",
        "3",
        "--data",
        str(world),
        "--runs",
        str(tmp_path),
    ]
    assert cli.run(command) != 0
    assert "`sslbench pretrain jigsaw_pp --scale smoke --seed 3` makes it" in capsys.readouterr().err
    assert not (tmp_path / "smoke/cc_jigsaw_pp").exists()


def test_reproduce_trains_the_teacher_first_and_scores_it_only_if_asked(world: Path, tmp_path: Path, capsys):
    student = Run("cc_jigsaw_pp", "smoke", 0, world, tmp_path)
    teacher = replace(student, name="jigsaw_pp")
    row = RowWork(["knn_imagenet_wu"], on_cpu(checkpoint_seconds=60))
    rows = bring_up_to_date(row, [student], 1, None)
    assert not any(steps.failures for steps in rows)
    assert student.backbone.is_file()
    assert (student.folder / "knn_imagenet_wu.json").is_file()
    assert not (teacher.folder / "knn_imagenet_wu.json").exists()
    shown = capsys.readouterr().out
    assert shown.index("[jigsaw_pp seed 0 1/1] pretrain") < shown.index("[cc_jigsaw_pp seed 0 1/2] pretrain")

    resolved = student.resolved(find_recipes()["cc_jigsaw_pp"])
    assert is_pretrained(student, resolved)
    made_by = recipe_hash(teacher.resolved(find_recipes()["jigsaw_pp"]))
    assert read_facts(student.backbone)["origin"]["after_recipes"] == {"teacher": made_by}
    record = read_record(student.folder / "knn_imagenet_wu.json")
    assert not_good([record], now_of) == {}
    older = replace(record, origin=record.origin | {"after_recipes": {"teacher": "older"}})
    [why] = not_good([older], now_of).values()
    assert why == f"the recipe of its teacher was older and is {made_by} now"
    backbone, facts = load_backbone(teacher.backbone)
    with torch.no_grad():
        next(backbone.parameters()).add_(1.0)
    save_backbone(teacher.backbone, backbone, facts["origin"])
    assert not is_pretrained(student, resolved), "another teacher, another student"
    teacher.backbone.unlink()
    assert not is_pretrained(student, resolved)


def test_asked_for_it_is_scored_too_and_each_seed_has_its_own(tmp_path: Path):
    runs = [Run(name, "smoke", seed, tmp_path, tmp_path) for seed in (0, 1) for name in ("cc_jigsaw_pp", "random_init")]
    needs = runs_needed(runs)
    assert list(needs)[:4] == runs
    assert [(each.name, each.seed) for each in list(needs)[4:]] == [("jigsaw_pp", 0), ("jigsaw_pp", 1)]
    assert [each.seed for each in needs[runs[2]]] == [1]
    asked = [*runs, *list(needs)[4:]]
    assert list(runs_needed(asked)) == asked


def test_recipes_in_a_circle_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    circle = {"a": replace(STUDENT, after={"teacher": "b"}), "b": replace(STUDENT, after={"teacher": "a"})}
    monkeypatch.setattr("benchmark.runs.reproduce.get_recipe", lambda name, extra: circle[name])
    with pytest.raises(UserError, match=r"itself, as a after b after a|itself, as b after a after b"):
        runs_needed([Run("a", "smoke", 0, tmp_path, tmp_path)])


@pytest.mark.parametrize("jobs", [1, 2])
def test_none_begins_before_what_it_needs_has_ended(jobs: int, tmp_path: Path):
    """Folders that lie in each other can only be made from the outside in. (Functions of this file would be imported
    with all of it, in new processes.)"""
    inner, middle, outer = items = [tmp_path / "a/b/c", tmp_path / "a/b", tmp_path / "a"]
    ended = [item for item, _ in side_by_side(os.mkdir, items, jobs, {inner: [middle], middle: [outer]})]
    assert ended == [outer, middle, inner]
