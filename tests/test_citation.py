"""CITATION.cff: valid by the rules of Citation File Format 1.2.0 that it uses, and in step with pyproject.toml."""

from __future__ import annotations

import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
REQUIRED = {"cff-version", "message", "title", "authors"}
ALLOWED = REQUIRED | {
    *("abstract", "commit", "contact", "date-released", "doi", "identifiers", "keywords", "license", "license-url"),
    *("preferred-citation", "references", "repository", "repository-artifact", "repository-code", "type", "url"),
    "version",
}


def test_it_is_valid():
    assert set(CITATION) >= REQUIRED
    assert set(CITATION) <= ALLOWED
    texts = {key: value for key, value in CITATION.items() if key not in ("authors", "keywords")}
    assert all(isinstance(value, str) and value for value in texts.values()), texts
    assert CITATION["cff-version"] == "1.2.0"
    assert CITATION["type"] in ("software", "dataset")
    assert len(set(CITATION["keywords"])) == len(CITATION["keywords"]) > 0
    assert CITATION["authors"]
    for author in CITATION["authors"]:  # an entity; a person would have a family name
        assert set(author) & {"name", "family-names", "given-names", "alias"}
        assert all(isinstance(value, str) and value for value in author.values())


def test_it_says_what_the_package_says():
    assert CITATION["title"] == PROJECT["name"]
    assert CITATION["version"] == PROJECT["version"]
    assert CITATION["license"] == PROJECT["license"]
    assert CITATION["abstract"].rstrip(".") == PROJECT["description"]
    [author] = [author["name"] for author in CITATION["authors"]]
    assert author in (ROOT / "LICENSE").read_text()
