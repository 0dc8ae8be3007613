"""What is read from a file cannot run code: a run directory may lie where others can write."""

from __future__ import annotations

import ast
import os
import pickle
from pathlib import Path

import pytest
import torch

import dfnas_ray

MODULES = sorted(Path(dfnas_ray.__file__).parent.rglob("*.py"))
UNPICKLERS = {"pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}
READ_NOTHING = {"dumps", "cpu_count"}  # what may be called in them
SAFE_LOADERS = ("SafeLoader", "_PlainLoader")  # the second is yaml_text.py's own, a subclass of the first


def offences(source: str) -> list[str]:
    """Lines that could run what they read."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in UNPICKLERS:
            found.append(f"line {node.lineno}: {node.module}")
        if isinstance(node, ast.Call):
            called, given = (
                ast.unparse(node.func),
                {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords},
            )
            if called == "torch.load" and given.get("weights_only") != "True":
                found.append(f"line {node.lineno}: torch.load without weights_only=True")
            loaders = [*map(ast.unparse, node.args[1:]), *given.values()]
            if called == "yaml.load" and not any(name.endswith(SAFE_LOADERS) for name in loaders):
                found.append(f"line {node.lineno}: {called}")
            if called in ("eval", "exec", "np.load", "numpy.load") and given.get("allow_pickle") != "False":
                found.append(f"line {node.lineno}: {called}")
            reads = called.split(".")[0] in UNPICKLERS and called.rpartition(".")[2] not in READ_NOTHING
            own = [ast.unparse(one.func) for one in node.args if isinstance(one, ast.Call)]
            if reads and any(name.rpartition(".")[2] == "dumps" for name in own):
                reads = False  # what was pickled in the same breath
            if reads or called in ("yaml.unsafe_load", "yaml.full_load"):
                found.append(f"line {node.lineno}: {called}")
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_no_module_reads_what_could_run_code(path):
    assert offences(path.read_text()) == []


@pytest.mark.parametrize(
    "source",
    [
        "pickle.loads(data)",
        "from cloudpickle import loads",
        "joblib.load(path)",
        "torch.load(f)",
        "torch.load(f, weights_only=False)",
        "np.load(f, allow_pickle=True)",
        "eval(text)",
        "yaml.load(text, Loader=yaml.Loader)",
    ],
)
def test_the_check_finds_them(source):
    assert offences(source)


class Planted:
    """Runs a command when it is unpickled."""

    def __init__(self, command: str):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def test_a_planted_state_is_refused_and_not_run(tmp_path):
    trace, state = tmp_path / "trace", tmp_path / "state.pt"
    torch.save({"history": Planted(f"touch {trace}")}, state)
    with pytest.raises(pickle.UnpicklingError):
        torch.load(state, weights_only=True)
    assert not trace.exists()
    torch.load(state, weights_only=False)  # the plant works where it is let in
    assert trace.exists()
