"""The documents: what they link to is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
DOCUMENTS = [
    path
    for path in sorted(REPOSITORY.rglob("*.md"))
    if not any(part.startswith(".") or part == "runs" for part in path.relative_to(REPOSITORY).parts)
]


def test_the_documents_are_found():
    assert {"README.md", "CONTRIBUTING.md", "searching.md"} <= {path.name for path in DOCUMENTS}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_every_link_to_a_file_leads_to_one(document):
    links = re.findall(r"\]\(([^)#]+)", document.read_text())
    files = [link for link in links if "://" not in link and not link.startswith("mailto:")]
    assert [link for link in files if not (document.parent / link).exists()] == []
