"""The notebook in examples/: it can be read, it is small, and it does what it says."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import nbformat
import pytest

NOTEBOOK = Path(__file__).parents[2] / "examples" / "digits.ipynb"


@pytest.fixture
def notebook():
    return nbformat.read(NOTEBOOK, as_version=4)


def code_of(notebook) -> list[str]:
    return [cell.source for cell in notebook.cells if cell.cell_type == "code"]


def test_the_cells_are_python_and_take_names_that_are_there(notebook):
    import dfnas_ray

    source = "\n".join(code_of(notebook))
    tree = ast.parse(source)
    used = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "dfnas"
    }
    assert {"Teacher", "synthesize", "search", "retrain", "evaluate"} <= used
    assert used <= set(dfnas_ray.__all__)


def test_its_settings_are_settings(notebook):
    from dfnas_ray.config.experiment import make_experiment

    sections = {"synthesize": "synthesis", "search": "search", "retrain": "retraining"}
    assignments = {"learning": None}
    for node in ast.walk(ast.parse("\n".join(code_of(notebook)))):
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") in assignments:
            assignments[node.targets[0].id] = ast.literal_eval(node.value)
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "") in sections:
            given = {
                word.arg: assignments[word.value.id]
                if isinstance(word.value, ast.Name)
                else ast.literal_eval(word.value)
                for word in node.keywords
                if word.arg != "num_images"
            }
            make_experiment({"teacher": "digits", sections[node.func.attr]: given})


def test_it_is_small_and_knows_no_machine(notebook):
    text = NOTEBOOK.read_text()
    assert len(text) < 150_000
    assert re.findall(r"/(?:home|tmp|work|root|Users)/", text) == []
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert {output.output_type for output in outputs} <= {"stream", "execute_result", "display_data"}
    assert any("image/png" in output.get("data", {}) for output in outputs)


@pytest.mark.slow
def test_it_runs_to_its_end(notebook, tmp_path):
    from nbclient import NotebookClient

    done = NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    accuracies = ast.literal_eval(done.cells[-2].outputs[0].data["text/plain"])
    measured = {name: float(text.rstrip("%")) for name, text in accuracies.items()}
    assert measured["teacher"] > 95
    assert measured["student"] > 80
    assert list(tmp_path.iterdir()) == []
