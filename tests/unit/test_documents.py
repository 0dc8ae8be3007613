"""The documents: what they link to is there, what they quote is in the code, and their sentences are short."""

from __future__ import annotations

import ast
import re
import textwrap
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import yaml

import dfnas_ray
from dfnas_ray.config.experiment import load_experiment, make_experiment
from dfnas_ray.planning.recipe import IMAGES_PER_CLASS, ROWS, complete
from dfnas_ray.version import __version__
from dfnas_ray.workflow.sweep import check_ranges

REPOSITORY = Path(__file__).parents[2]
DOCUMENTS = [
    path
    for path in sorted(REPOSITORY.rglob("*.md"))
    if not any(part.startswith(".") or part in ("runs", "build") for part in path.relative_to(REPOSITORY).parts)
]
PROSE = [
    *(REPOSITORY / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")),
    *(REPOSITORY / folder / "README.md" for folder in ("cluster", "examples/plugin")),
    *(path for path in DOCUMENTS if path.is_relative_to(REPOSITORY / "docs")),
]
PICTURES = sorted((REPOSITORY / "docs" / "pictures").glob("*.svg"))

MOST_WORDS = 30
"""Of a sentence."""


def name_of(path: Path) -> str:
    return str(path.relative_to(REPOSITORY))


def test_the_documents_are_found():
    assert {"README.md", "CONTRIBUTING.md", "searching.md"} <= {path.name for path in DOCUMENTS}
    assert len(PICTURES) >= 4


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_every_link_to_a_file_leads_to_one(document):
    links = re.findall(r"\]\(([^)#]+)", document.read_text())
    made = {"reference/settings.md", "reference/commands.md"}  # by the site
    files = [link for link in links if "://" not in link and not link.startswith("mailto:")]
    missing = [link for link in files if not (document.parent / link).exists()]
    assert [
        link for link in missing if (document.parent / link).resolve() not in {REPOSITORY / "docs" / m for m in made}
    ] == []


# Sentences


def sentences(text: str) -> Iterator[str]:
    """Yield the sentences of Markdown, without code, tables, pictures and headings; code inside counts as a word."""
    text = re.sub(r"^ *```.*?^ *```", "", text, flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"!\[[^\]]*\]\([^)]*\)", "", text)
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text)
    text = re.sub(r"`[^`\n]*`", "code", text)
    lines = [line for line in text.splitlines() if not line.lstrip().startswith(("|", "#", ":::", "!!!", "options:"))]
    lines = [re.sub(r"^ *([-*]|\d+\.) ", "\n\n", line) for line in lines]
    for block in re.split(r"\n\s*\n", "\n".join(lines)):
        yield from (one for one in re.split(r"(?<=[.!?])[)*\"”]*\s+", " ".join(block.split())) if one)


def words(sentence: str) -> int:
    return sum(any(letter.isalnum() for letter in word) for word in sentence.split())


def test_sentences_are_told_apart():
    text = (
        "# Not this\n\nOne two [three four](x.md). Five `a b c` six:\n\n- seven eight\n- nine!\n\n"
        "```\nnot this\n```\n| nor | this |\n"
    )
    assert [words(one) for one in sentences(text)] == [4, 3, 2, 1]


@pytest.mark.parametrize("document", PROSE, ids=name_of)
def test_no_sentence_is_long(document):
    assert [one for one in sentences(document.read_text()) if words(one) > MOST_WORDS] == []


def test_the_readme_fits_on_a_screen_and_a_half():
    assert len((REPOSITORY / "README.md").read_text().split()) <= 700


# What is quoted


@cache
def texts_of_the_code() -> tuple[str, ...]:
    """All texts in the package; what is filled in stands there as …, and so does a second text that is added."""
    found = []
    for module in sorted((REPOSITORY / "dfnas_ray").rglob("*.py")):
        for node in ast.walk(ast.parse(module.read_text())):
            if isinstance(node, ast.JoinedStr):
                parts = [part.value if isinstance(part, ast.Constant) else "…" for part in node.values]
                found.append("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return tuple(found)


def quoted_messages() -> list[str]:
    return re.findall(r"^### `(.+)`$", (REPOSITORY / "docs" / "troubleshooting.md").read_text(), re.MULTILINE)


def is_in_the_code(message: str) -> bool:
    """Whether a text of the code has the words of the message, with anything in place of each …."""
    pattern = re.compile(".*".join(map(re.escape, re.split("…|%s", message))), re.DOTALL)
    return any(pattern.match(text.replace("{{", "{").replace("}}", "}")) for text in texts_of_the_code())


@pytest.mark.parametrize("message", quoted_messages())
def test_messages_of_the_troubleshooting_are_those_of_the_code(message):
    assert is_in_the_code(message)


def test_a_message_that_nothing_says_is_found():
    assert len(quoted_messages()) >= 25
    assert not is_in_the_code("The checkpoint … was eaten.")


def test_each_message_is_told_why_and_what_to_do():
    text = (REPOSITORY / "docs" / "troubleshooting.md").read_text()
    told = re.split(r"^### `.+`$", text.split("## When nothing fails")[0], flags=re.MULTILINE)[1:]
    assert [one for one in told if "**Why.**" not in one or "**What to do.**" not in one] == []


@pytest.mark.parametrize("picture", PICTURES, ids=name_of)
def test_pictures_load_nothing_and_say_what_they_show(picture):
    text = picture.read_text()
    assert re.findall(r"(?:href|src|url)\W+https?:|@import|<script", text) == []
    assert "<title>" in text
    assert "<desc>" in text
    assert "prefers-color-scheme: dark" in text


def test_the_table_of_chosen_settings_is_the_planners():
    text = (REPOSITORY / "docs" / "choosing.md").read_text()
    cells = [
        [cell.strip(" `") for cell in line.split("|")[2:-1]] for line in text.splitlines() if line.startswith("| ")
    ]
    chosen = (
        (
            f"{row.images:,}",
            row.batch_size,
            row.width,
            f"{row.bn_weight:g}",
            row.student_batch,
            f"{row.training_steps:,}",
        )
        for row in ROWS
    )
    for written in zip(*chosen, strict=True):
        assert list(map(str, written)) in cells
    assert [f"{row.precision}" for row in ROWS] in cells
    assert f"at least {IMAGES_PER_CLASS} per class" in text
    assert f"up to {ROWS[0].up_to} pixels | up to {ROWS[1].up_to} pixels | larger" in text


# What can be copied


def examples(language: str) -> list:
    """All blocks of code in a language, as parameters named after their documents."""
    block = re.compile(rf"^( *)```{language}\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
    return [
        pytest.param(textwrap.dedent(code), id=f"{name_of(document)}-{number}")
        for document in PROSE
        for number, (_, code) in enumerate(block.findall(document.read_text()))
    ]


def test_the_examples_are_found():
    assert len(examples("yaml")) >= 10
    assert len(examples("python")) >= 7


@pytest.mark.parametrize("text", examples("yaml"))
def test_an_example_of_settings_can_be_used_with_what_is_chosen_for_the_rest(text, digits_teacher):
    values = yaml.safe_load(text)
    config = make_experiment({**values, "teacher": {"kind": "digits", **values.get("teacher", {})}})
    if config.teacher.kind == "digits":  # the others are not there
        completed = complete(config, digits_teacher)
        if completed.sweep is not None:
            check_ranges(digits_teacher, completed, completed.sweep)


@pytest.mark.parametrize("text", examples("python"))
def test_an_example_in_python_takes_names_that_there_are_and_settings_that_fit(text, monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) in ("dfnas", "dfnas_ray"):
            assert node.attr in dfnas_ray.__all__
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("load_experiment"):
            load_experiment(*map(ast.literal_eval, node.args))


# What travels with the package


def test_the_example_in_the_package_is_the_experiment():
    example = REPOSITORY / "dfnas_ray" / "cli" / "examples" / "digits.yaml"
    assert example.read_text() == (REPOSITORY / "experiments" / "digits.yaml").read_text()


def test_the_wheel_carries_every_file_of_the_package():
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    patterns = project["tool"]["setuptools"]["package-data"]["dfnas_ray"]
    package = REPOSITORY / "dfnas_ray"
    others = {path for path in package.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")}
    assert others
    assert others - {path for pattern in patterns for path in package.glob(pattern)} == set()


def test_every_public_name_is_in_the_reference():
    told = re.findall(
        r"^::: dfnas_ray\..*\.(\w+)$", (REPOSITORY / "docs/reference/python.md").read_text(), re.MULTILINE
    )
    assert {*dfnas_ray.__all__} - {*told} == {"__version__"}


def test_every_page_is_in_the_menu():
    menu = (REPOSITORY / "mkdocs.yml").read_text()
    pages = [path.relative_to(REPOSITORY / "docs").as_posix() for path in (REPOSITORY / "docs").rglob("*.md")]
    assert [page for page in pages if f": {page}\n" not in menu] == []


def test_the_citation_names_this_version():
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text())
    assert citation["version"] == __version__
    assert citation["license"] == "Apache-2.0"


def test_the_licence_is_the_whole_text():
    text = (REPOSITORY / "LICENSE").read_text()
    assert "TERMS AND CONDITIONS FOR USE, REPRODUCTION, AND DISTRIBUTION" in text
    assert "END OF TERMS AND CONDITIONS" in text
