"""The mutations of a Python file that tests/mutants.py makes: operators, constants, conditions, calls, results."""

import ast
import contextlib
import copy
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

OPPOSITE = {
    **{ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq},
    **{ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.And: ast.Or, ast.Or: ast.And},
    **{ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Div},
    **{ast.Mod: ast.Mult, ast.Pow: ast.Mult, ast.BitOr: ast.BitAnd, ast.BitAnd: ast.BitOr},
}
FOR_PEOPLE = {
    "logger",
    "print",
    "error",
    "warning",
    "info",
    "debug",
    "filterwarnings",
}  # calls that only print something


class Mutant(NamedTuple):
    """One change of a file, and the lines whose tests could detect it; None for all lines of the file."""

    path: str
    line: int
    old: str
    new: str
    source: str
    lines: range | None


def with_fields(node: ast.AST, **fields) -> ast.AST:
    """A copy of the node with these fields changed."""
    changed = copy.copy(node)
    for name, value in fields.items():
        setattr(changed, name, value)
    return changed


def other_operators(node: ast.AST) -> Iterator[ast.AST]:
    """Copies of the node with the opposite operator, or without its sign."""
    match node:
        case ast.Compare(ops=[op, *rest]) if type(op) in OPPOSITE:
            yield with_fields(node, ops=[OPPOSITE[type(op)](), *rest])
        case ast.BinOp(op=op, left=left, right=right) if type(op) in OPPOSITE:
            if not any(isinstance(side, ast.JoinedStr | ast.List) or _is_text(side) for side in (left, right)):
                yield with_fields(node, op=OPPOSITE[type(op)]())
        case ast.AugAssign(op=op) | ast.BoolOp(op=op) if type(op) in OPPOSITE:
            yield with_fields(node, op=OPPOSITE[type(op)]())
        case ast.UnaryOp(op=ast.Not() | ast.USub(), operand=operand):
            yield operand


def other_constants(node: ast.AST) -> Iterator[ast.AST]:
    """Copies of the node with another number, truth value or name."""
    match node:
        case ast.Constant(value=bool(value)):
            yield with_fields(node, value=not value)
        case ast.Constant(value=int(value) | float(value)):
            yield with_fields(node, value=value + 1)
        case ast.Constant(value=str(value)) if value.count(" ") < 2:  # longer ones are messages
            yield with_fields(node, value=value + "_")


def changes(node: ast.AST) -> Iterator[tuple[ast.AST, ast.AST]]:
    """The node or a part of it, with each of its replacements."""
    yield from ((node, new) for kind in (other_operators, other_constants) for new in kind(node))
    match node:
        case ast.Expr(value=ast.Call()):
            yield node, ast.Pass()
        case ast.Return(value=value) if value and ast.unparse(value) != "None":
            yield node, with_fields(node, value=ast.Constant(None))
        case ast.Call(func=ast.Name(id="max" | "min")):
            pass  # in whatever order
        case ast.Call(args=[first, second]) if not any(isinstance(arg, ast.Starred) for arg in node.args):
            yield node, with_fields(node, args=[second, first])
        case ast.If(test=test) | ast.IfExp(test=test):
            yield from ((test, ast.Constant(value)) for value in (True, False))
        case ast.comprehension(ifs=[test, *_]):
            yield test, ast.Constant(True)


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def _is_for_people(node: ast.AST) -> bool:
    """Whether a node is a message, a type or a docstring, which are not changed."""
    match node:
        case ast.Raise() | ast.JoinedStr() | ast.Import() | ast.ImportFrom() | ast.Expr(value=ast.Constant()):
            return True
        case ast.keyword(arg="help" | "desc" | "unit" | "description"):
            return True
        case ast.Call(func=ast.Name(id=name)) | ast.Call(func=ast.Attribute(attr=name)) if name in FOR_PEOPLE:
            return True
        case ast.If(test=ast.Compare(left=ast.Name(id="__name__"))):
            return True
    return False


def walk(node: ast.AST, lines: range | None = None, inside: bool = False) -> Iterator[tuple[ast.AST, range | None]]:
    """All nodes that may be changed, each with the lines of its statement if it is inside a function."""
    if _is_for_people(node):
        return
    if inside and isinstance(node, ast.stmt | ast.ExceptHandler):
        last = node.body[0].lineno if hasattr(node, "body") else node.end_lineno + 1
        lines = range(node.lineno, max(last, node.lineno + 1))
    yield node, lines
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list"):
            continue
        if isinstance(node, ast.FunctionDef):  # defaults belong to the tests that run its body
            inside = name == "body"
            lines = range(node.body[0].lineno, node.end_lineno + 1)
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield from walk(child, lines, inside)


def mutants_of(root: Path, path: str) -> Iterator[Mutant]:
    """All changes of a file."""
    text = (root / path).read_bytes()
    starts = [0, *itertools.accumulate(map(len, text.splitlines(keepends=True)))]
    for node, lines in walk(ast.parse(text)):
        for old, new in changes(node):
            start, end = starts[old.lineno - 1] + old.col_offset, starts[old.end_lineno - 1] + old.end_col_offset
            words = ast.unparse(ast.fix_missing_locations(new))
            words = words if isinstance(new, ast.stmt | ast.Constant) else f"({words})"
            source = (text[:start] + words.encode() + text[end:]).decode()
            with contextlib.suppress(SyntaxError):
                ast.parse(source)
                yield Mutant(path, old.lineno, " ".join(text[start:end].decode().split()), words, source, lines)
