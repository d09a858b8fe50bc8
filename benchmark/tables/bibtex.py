"""The ledger's papers as BibTeX, from what sources.csv says of them and no more."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from benchmark.tables.export import escaped
from benchmark.tables.ledger import Source

CONFERENCES = {"BMVC", "CVPR", "ECCV", "ICCV", "ICLR", "ICML", "NeurIPS"}
JOURNALS = {"TPAMI"}


def bibtex(sources: Iterable[Source]) -> str:
    return "\n".join(_entry(source) for source in sources)


def _entry(source: Source) -> str:
    kind, place = "misc", "howpublished"
    if source.venue in CONFERENCES:
        kind, place = "inproceedings", "booktitle"
    if source.venue in JOURNALS:
        kind, place = "article", "journal"
    facts = {
        "title": f"{{{escaped(source.title)}}}",  # braces keep its capitals
        "author": _authors(source.authors),
        place: escaped(source.venue),
        "year": source.year,
        "eprint": source.arxiv_id,
        "archiveprefix": "arXiv" if source.arxiv_id else "",
    }
    lines = [f"  {name} = {{{text}}},\n" for name, text in facts.items() if text]
    return f"@{kind}{{{source.key},\n{''.join(lines)}}}\n"


def _authors(told: str) -> str:
    """ "Misra & van der Maaten" or "Chen X. et al." in BibTeX's way; "" for nobody that is known."""
    return " and ".join(_people(told)) if told != "unknown" else ""


def _people(told: str) -> Iterator[str]:
    names, others, _ = told.partition(" et al.")
    for name in names.split(" & "):
        person = re.fullmatch(r"(.+) ([A-Z]\.)", name)
        # BibTeX takes a name of several capitalised words for a person with first names
        group = " " in name and name[0].isupper()
        text = escaped(f"{person[1]}, {person[2]}" if person else name)
        yield f"{{{text}}}" if group and not person else text
    if others:
        yield "others"
