"""What code may not do with a library, found in its syntax tree.

- Import an underscore name: `from x import _y`, `import x._y`, `from x._y import z`.
- Read an underscore attribute of anything but `self`, `cls` and a class of the same module: `x._y`.
- Set or delete an attribute of a library's object: `x.y = …`, `del x.y`, `setattr(x, "y", …)`.

"A library" is everything that is installed, the standard library included. A syntax tree does not show what an object
is, so the third rule decides by its name: one that was imported from a library, that is annotated with a library's
type or `Any`, or that was assigned the result of a call into a library. What hides behind an attribute of `self`, or
behind the result of our own function, is not found.
"""

import ast
from collections.abc import Iterator
from typing import NamedTuple

OURS = {"app", "plinth", "tools", "benchmarks", "tests", "migrations", "__future__"}
# Underscore names that the documentation offers: of named tuples, and the exit of a forked process.
DOCUMENTED = {"_asdict", "_fields", "_make", "_replace", "_exit"}
# Attributes that their libraries' documentation sets: Starlette's `state` and Click's `obj` hold the caller's own
# objects, FastAPI's `Response.status_code`, logging's `Logger.propagate`, locust's `Environment.process_exit_code`.
DOCUMENTED_WRITES = {"state", "obj", "status_code", "propagate", "process_exit_code"}
# Names of these annotate our own objects.
TYPES_ONLY = {"typing", "collections", "types"}

Function = ast.FunctionDef | ast.AsyncFunctionDef


class Finding(NamedTuple):
    line: int
    what: str


def findings(source: str) -> list[Finding]:
    tree = ast.parse(source)
    return sorted([*_private_imports(tree), *_private_reads(tree), *_writes(tree, frozenset())])


def _private_imports(tree: ast.Module) -> Iterator[Finding]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            paths = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            paths = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for path in paths:
            if path.split(".")[0] not in OURS and any(map(_is_private, path.split("."))):
                yield Finding(node.lineno, f"import of {path}")


def _private_reads(tree: ast.Module) -> Iterator[Finding]:
    own = {"self", "cls"} | {node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and _is_private(node.attr) and node.attr not in DOCUMENTED:
            owner = node.value
            if not (isinstance(owner, ast.Name) and owner.id in own) and not _is_super(owner):
                yield Finding(node.lineno, f"use of {ast.unparse(node)}")


def _writes(scope: ast.AST, outer: frozenset[str]) -> Iterator[Finding]:
    """`outer` holds the names of the enclosing scopes that stand for a library's objects."""
    inside = [*_nodes_of(scope)]
    foreign = outer - _parameters(scope) | _foreign_names(scope, inside, outer)
    for node in inside:
        if isinstance(node, ast.Attribute) and not isinstance(node.ctx, ast.Load):
            target: ast.expr = node
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in {"setattr", "delattr"}:
            target = ast.Attribute(node.args[0], "<setattr>", ast.Store())
        else:
            if isinstance(node, Function | ast.ClassDef | ast.Lambda):
                yield from _writes(node, frozenset(foreign))
            continue
        root, *attributes = _chain(target)
        if root in foreign and not DOCUMENTED_WRITES & {*attributes}:
            yield Finding(node.lineno, f"change of {ast.unparse(target)}")


def _nodes_of(scope: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a scope; of a function or class inside of it, the node itself and nothing of its body."""
    for child in ast.iter_child_nodes(scope):
        yield child
        if not isinstance(child, Function | ast.ClassDef | ast.Lambda):
            yield from _nodes_of(child)


def _foreign_names(scope: ast.AST, inside: list[ast.AST], outer: frozenset[str]) -> set[str]:
    names: set[str] = set()
    for node in inside:
        match node:
            case ast.Import():
                names |= {(alias.asname or alias.name).split(".")[0] for alias in node.names if _is_foreign(alias.name)}
            case ast.ImportFrom(module=str(module), level=0):
                names |= {alias.asname or alias.name for alias in node.names if _is_foreign(module, alias.name)}
    known = names | outer
    for node in [*inside, *_arguments(scope)]:
        match node:
            case ast.arg(arg=name, annotation=ast.expr() as annotation) if _chain(annotation)[0] in known:
                names.add(name)
            case ast.AnnAssign(target=ast.Name(id=name), annotation=annotation) if _chain(annotation)[0] in known:
                names.add(name)
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Call(func=called)) if _chain(called)[0] in known:
                names.add(name)
    return names


def _arguments(scope: ast.AST) -> list[ast.arg]:
    if not isinstance(scope, Function | ast.Lambda):
        return []
    arguments = scope.args
    return [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]


def _parameters(scope: ast.AST) -> set[str]:
    return {argument.arg for argument in _arguments(scope)}


def _chain(node: ast.expr) -> list[str]:
    """`["a", "b", "c"]` for `a.b.c`, with an empty root for what does not begin with a name."""
    if isinstance(node, ast.Attribute):
        return [*_chain(node.value), node.attr]
    return [node.id if isinstance(node, ast.Name) else ""]


def _is_foreign(module: str, name: str = "") -> bool:
    return module.partition(".")[0] not in OURS | TYPES_ONLY or name == "Any"


def _is_private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__")


def _is_super(node: ast.expr) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "super"
