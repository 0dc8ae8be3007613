"""The text form of a DARTS genotype. It is read by a special parser and never evaluated."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from typing import TypeAlias

from dfnas_ray.errors import GenotypeError

Gene: TypeAlias = "tuple[str, int]"
CellGenes: TypeAlias = "list[Gene]"
"""Two pairs (operation, source) per node, in order; sources 0 and 1 are the two previous cells, 2 is the first node."""

_FIELDS = ("normal", "normal_concat", "reduce", "reduce_concat")
_MAX_LENGTH = 10_000  # characters; a genotype has about 600


def format_genotype(normal: CellGenes, reduce: CellGenes) -> str:
    """Return ``Genotype(normal=[...], normal_concat=range(2, 6), reduce=[...], reduce_concat=range(2, 6))``."""
    concat = f"range(2, {2 + len(normal) // 2})"
    return f"Genotype(normal={normal}, normal_concat={concat}, reduce={reduce}, reduce_concat={concat})"


def parse_genotype(
    text: str, operations: Sequence[str], num_nodes: int, num_inputs: int
) -> tuple[CellGenes, CellGenes]:
    """Parse the text of a genotype.

    Args:
        text: As `format_genotype` writes it. Tuples may replace lists, a list may replace range(), and spaces do not
            matter.
        operations: Names of the allowed operations.
        num_nodes: Number of nodes of a cell.
        num_inputs: Number of inputs of a cell.

    Raises:
        GenotypeError: the text is not a genotype; the message says what is wrong, and where.
    """
    fields = _fields(text)
    cells = []
    for name in ("normal", "reduce"):
        cells.append(_genes(text, name, fields[name], operations, num_nodes, num_inputs))
        concat, expected = _concat(text, fields[f"{name}_concat"]), list(range(num_inputs, num_inputs + num_nodes))
        if concat != expected:
            raise _error(text, f"{name}_concat must be all nodes, {expected}, not {concat}")
    return cells[0], cells[1]


def _fields(text: str) -> dict[str, ast.expr]:
    if len(text) > _MAX_LENGTH:
        raise _error(text[:40] + "...", f"it has {len(text):,} characters")
    try:
        call = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise _error(text, "it must look like Genotype(normal=[('sep_conv_3x3', 0), ...], ...)") from error
    if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "Genotype"):
        raise _error(text, "it must look like Genotype(normal=[('sep_conv_3x3', 0), ...], ...)")
    values = dict(zip(_FIELDS, call.args, strict=False))
    for keyword in call.keywords:
        if keyword.arg not in _FIELDS or keyword.arg in values:
            raise _error(text, f"{keyword.arg} is unknown or given twice; the fields are {', '.join(_FIELDS)}")
        values[keyword.arg] = keyword.value
    missing = [name for name in _FIELDS if name not in values]
    if missing or len(call.args) > len(_FIELDS):
        raise _error(text, f"{missing[0]} is missing" if missing else "it has too many fields")
    return values


def _genes(
    text: str, name: str, node: ast.expr, operations: Sequence[str], num_nodes: int, num_inputs: int
) -> CellGenes:
    value = _literal(node)
    items = list(value) if isinstance(value, list | tuple) else []
    pairs = all(
        isinstance(gene, list | tuple) and len(gene) == 2 and isinstance(gene[0], str) and type(gene[1]) is int
        for gene in items
    )
    if not pairs or len(items) != 2 * num_nodes:
        raise _error(
            text, f"{name} must be {2 * num_nodes} pairs (operation, input), two for each of {num_nodes} nodes"
        )
    genes = [(gene[0], gene[1]) for gene in items]
    for number, (operation, source) in enumerate(genes):
        if operation not in operations:
            raise _error(text, f"{operation!r} in {name} is none of {', '.join(operations)}")
        if not 0 <= source < num_inputs + number // 2:
            raise _error(text, f"node {number // 2 + 1} of {name} takes input {source}, which does not come before it")
        if number % 2 and source == genes[number - 1][1]:
            raise _error(text, f"node {number // 2 + 1} of {name} takes input {source} twice")
    return genes


def _concat(text: str, node: ast.expr) -> list[int]:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "range" and not node.keywords:
        bounds = [bound for argument in node.args if type(bound := _literal(argument)) is int and abs(bound) < 100]
        if len(bounds) == len(node.args) == 2:
            return list(range(*bounds))
    value = _literal(node)
    if isinstance(value, list | tuple) and all(type(number) is int for number in value):
        return list(value)
    raise _error(text, "normal_concat and reduce_concat must be range(2, 6) or a list of numbers")


def _literal(node: ast.expr) -> object:
    try:
        value: object = ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, RecursionError):
        return None
    return value


def _error(text: str, why: str) -> GenotypeError:
    return GenotypeError(f"{text!r} is not a genotype of darts: {why}.")
