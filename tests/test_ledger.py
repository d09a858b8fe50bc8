"""The ledger: every number there, under canonical names, and each fault named by file and line."""

from __future__ import annotations

import re
import shutil
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from survey import SurveyTable, survey_tables

from benchmark.core.errors import UserError
from benchmark.tables.ledger import LEADERBOARDS, citation, read_ledger, read_names, read_sources

NUMBERS = {
    "amdim_repo": 12,
    "caron2018_deepcluster": 210,
    "chen2020_mocov2": 37,
    "chen2020_simclr": 305,
    "chen2020_simclrv2": 86,
    "doersch2015_context": 15,
    "feng2019_featdecouple": 280,
    "gidaris2018_rotnet": 269,
    "grill2020_byol": 28,
    "he2020_moco": 287,
    "henaff2020_cpcv2": 86,
    "hjelm2018_dim": 114,
    "jenni2018_spot": 178,
    "li2018_skin_bmvc": 50,
    "misra2020_pirl": 252,
    "moco_repo": 17,
    "noroozi2016_jigsaw": 110,
    "noroozi2018_boosting": 259,
    "npid_repo": 3,
    "oord2018_cpc": 16,
    "pycontrast_repo": 52,
    "simclr_repo": 3,
    "suzuki2018_slides": 61,
    "tian2019_cmc": 88,
    "vissl_repo": 77,
    "zhai2019_s4l": 42,
    "zhang2016_colorization": 48,
    "zhang2017_splitbrain": 230,
    "zhang2019_aet": 90,
}

# what a document leaves out of a table that the ledger has whole
NOT_IN_THE_DOCUMENT = {
    "pirl_detection_voc0712": ["cpc_big", "cpc_huge", "moco"],
    "pirl_linear": [
        *("aet", "amdim", "bigbigan", "bigbigan_big", "cmc", "cpc", "cpc_huge", "deepcluster", "local_agg", "npid"),
        "rotation_kolesnikov",
    ],
    "pirl_semi_supervised": ["colorization", "cpc_largest"],
}


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    for name in ("names.csv", "sources.csv"):
        shutil.copy(LEADERBOARDS / name, tmp_path)
    shutil.copytree(LEADERBOARDS / "reported", tmp_path / "reported")
    return tmp_path


def test_every_number_is_there():
    ledger = read_ledger()
    assert {source: len(lines) for source, lines in ledger.items()} == NUMBERS
    assert sum(NUMBERS.values()) == 3305
    assert len({(source, line.table) for source, lines in ledger.items() for line in lines}) == 108


@pytest.mark.parametrize("document", survey_tables(), ids=lambda document: document.key)
def test_recount_of_the_survey_documents(document: SurveyTable):
    left_out = NOT_IN_THE_DOCUMENT.get(document.key, ())
    lines = [line for line in read_ledger()[document.source] if line.table == document.table]
    assert set(left_out) <= {line.method for line in lines}
    ours = Counter(float(line.value) for line in lines if line.method not in left_out)
    assert ours == Counter(number for row in document.rows for number in row if number is not None)


def test_the_documents_have_so_many_numbers():
    numbers = {one.key: sum(number is not None for row in one.rows for number in row) for one in survey_tables()}
    assert numbers == {
        "voc07_finetune": 38,
        "voc07_finetune_small": 22,
        "rotnet_places205": 60,
        "dim_tiny_imagenet": 19,
        "skin_50_labels": 15,
        "skin_300_labels": 35,
        "jigsaw_voc07": 18,
        "jigsaw_permutations": 55,
        "jigsaw_shortcuts": 8,
        "pirl_detection_voc0712": 20,
        "pirl_linear": 31,
        "pirl_semi_supervised": 16,
        "pirl_other_pretexts": 24,
    }


def test_what_nobody_has_verified_is_marked():
    evidence = Counter(line.evidence for lines in read_ledger().values() for line in lines)
    assert evidence == {
        "image of the paper table": 1819,
        "paper or official repository text": 1349,
        "survey document": 80,
        "unverified": 57,
    }


def test_who_measured_is_the_source_or_said_otherwise():
    for source, lines in read_ledger().items():
        for line in lines:
            assert line.measured_by in (source, f"adopted by {source}", "not stated", ""), line
            assert line.measured_by or line.transfer == "model_size", line
            assert not line.protocol or line.measured_by == source, f"adopted numbers follow somebody else: {line}"


def test_names_are_all_used_and_variants_are_of_something():
    names, ledger = read_names(), read_ledger()
    lines = [line for one in ledger.values() for line in one]
    used = {
        "method": {line.method for line in lines},
        "backbone": {line.backbone for line in lines},
        "pretraining": {line.pretrain_data for line in lines},
        "transfer": {line.transfer for line in lines},
        "metric": {line.metric for line in lines},
    }
    for kind, known in names.items():
        assert not known.keys() - used[kind], kind
    assert {name.of for name in names["method"].values() if name.of} <= names["method"].keys()
    titles = Counter((kind, name.title) for kind, known in names.items() for name in known.values())
    assert [title for title, times in titles.items() if times > 1] == [("metric", "accuracy")]


def test_one_method_has_one_name():
    names = read_names()
    assert set(names["method"]["npid"].aliases.split(";")) == {"instdisc", "instdis"}
    assert "rotnet" in names["method"]["rotation"].aliases


def test_protocols_of_the_ledger_exist():
    find_transfers = pytest.importorskip("benchmark.transfers").find_transfers
    protocols = {line.protocol for lines in read_ledger().values() for line in lines} - {""}
    # detection and segmentation have protocols of their own names before they have transfers
    assert {
        name for name in protocols - find_transfers().keys() if "_det_" not in name and "_seg_" not in name
    } == set()


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (",75.9,", ",many,", r"line \d+: 'many' is not a number"),
        (",75.9,", ",nan,", r"line \d+: 'nan' is not a number"),
        ("method,", "recipe,", "header must be method,"),
        (
            "colorization,resnet50",
            "colourization,resnet50",
            "'colourization' is not the canonical name of a method",
        ),
        ("npid,resnet50", "instdisc,resnet50", "'instdisc' is not the canonical name of a method"),
        (",resnet50,", ",R50,", r"line \d+: 'R50' is not the canonical name of a backbone"),
        ("imagenet_linear", "imagenet_lineal", r"line \d+: 'imagenet_lineal' is not the canonical name of a transfer"),
        (",%,75.9", ",M,75.9", r"line \d+: top1_acc is not given in 'M'"),
        ("paper or official repository text", "hearsay", r"line \d+: evidence 'hearsay'"),
        (",map,%,87.5", ",map,%,87.5,", r"line \d+: has 14 cells"),
        (
            ",voc07_linear_svm,,best_layer,map,%,87.5",
            ",imagenet_linear,,best_layer,top1_acc,%,87.5",
            r"line \d+: a second",
        ),
    ],
)
def test_faults_are_named(copy: Path, old: str, new: str, said: str):
    path = copy / "reported/misra2020_pirl.csv"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(UserError, match=f"misra2020_pirl.csv.*{said}"):
        read_ledger(copy)


def test_a_ledger_without_a_source_is_named(copy: Path):
    (copy / "reported/misra2020_pirl.csv").rename(copy / "reported/nobody.csv")
    with pytest.raises(UserError, match=r"nobody\.csv: sources\.csv has no source 'nobody'"):
        read_ledger(copy)


def test_an_alias_of_two_methods_is_named(copy: Path):
    path = copy / "names.csv"
    path.write_text(path.read_text().replace("instdisc;instdis", "instdisc;pirl"))
    with pytest.raises(UserError, match=r"names\.csv, line \d+: 'pirl' already names another method"):
        read_names(path)


@given(st.data())
def test_a_garbled_cell_is_named_or_harmless(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject):
    """Whatever is typed over a cell that says what the number is: it is refused, or it is another canonical name."""
    copy = tmp_path_factory.mktemp("ledger")
    for name in ("names.csv", "sources.csv"):
        shutil.copy(LEADERBOARDS / name, copy)
    (copy / "reported").mkdir()
    source = (LEADERBOARDS / "reported/npid_repo.csv").read_text().splitlines()
    cells = source[1].split(",")
    column = data.draw(st.sampled_from([0, 1, 2, 3, 6, 7, 8, 10]))
    word = data.draw(st.text(st.characters(codec="utf-8", exclude_characters=',"\r\n'), min_size=1, max_size=8))
    old, cells[column] = cells[column], word
    path = copy / "reported/npid_repo.csv"
    path.write_text("\n".join([source[0], ",".join(cells), *source[2:]]) + "\n", newline="")
    names = read_names()
    kind = {0: "method", 1: "backbone", 2: "pretraining", 3: "transfer", 6: "metric"}.get(column)
    if word == old or (word in names[kind] if kind else column == 8 and is_a_number(word)):
        read_ledger(copy)
    else:
        with pytest.raises(UserError, match=re.escape(str(path))):
            read_ledger(copy)


def is_a_number(word: str) -> bool:
    whole, dot, part = word.removeprefix("-").removeprefix("+" if word[0] == "+" else "").partition(".")
    return word.isascii() and whole.isdigit() and (part.isdigit() or not dot)


def test_citations():
    assert citation("misra2020_pirl").endswith("CVPR 2020, arXiv:1912.01991")
    assert citation("kwasigroch_slides").endswith("Politechnika Gdanska")
    assert len(read_sources()) == 41
    with pytest.raises(UserError, match="no source 'nobody'"):
        citation("nobody")
