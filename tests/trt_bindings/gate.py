"""Ways past mypy by which code could use something of TensorRT's that no Protocol declares.

mypy refuses an undeclared member of a value that is typed with a Protocol of ``api_*.py``.  What is
left is to have TensorRT's objects untyped, or typed otherwise; this finds that in source:

- importing ``tensorrt*`` itself: only ``library.py`` does, and casts the module to ``Module``;
- members named by strings: ``getattr`` and its kind, ``vars``, ``__dict__``, ``__members__["X"]``;
- ``Any`` in a module that handles TensorRT's objects;
- casts there: from one type to another they say what mypy cannot check;
- ``type: ignore``, except on a class's line: a base that is a value cannot be typed.  mypy takes
  every member of such a class for granted, so it may use those that are written in it, and its
  objects must get a Protocol's type where they are made.
"""

import ast
import re
import tokenize
from collections.abc import Iterator
from io import StringIO

LOADER = "quantlab.engines.trt.library"
PACKAGE = ("quantlab.engines.trt", "quantlab.engines.tensorrt")
API = re.compile(r"quantlab\.engines\.trt\.(api_build|api_run|library)$")
BY_STRING = {"getattr", "setattr", "hasattr", "delattr", "vars", "attrgetter", "methodcaller"}
IGNORED = {"misc", "valid-type"}
"""What mypy says of a class whose base is an attribute of a module that it knows as a value."""


def offences(source: str, *, name: str) -> list[str]:
    """Return what of a module of quantlab gets past mypy, with the lines.

    Args:
        source: its text.
        name: as it is imported, e.g. ``quantlab.engines.trt.builder``.
    """
    tree = ast.parse(source)
    found = [*_imports(tree), *_loads(tree)]
    if name == LOADER:
        found += _uncast(tree)
    elif handles(tree) or name.startswith(PACKAGE):
        found += [f"line {call.lineno}: imports by a computed name" for call in _computed(tree)]
    if handles(tree) or name.startswith(PACKAGE):
        found += [*_strings(tree), *_ignores(source), *_derived(tree, source)]
    if handles(tree) and not API.match(name):
        found += [*_any(tree), *_casts(tree)]
    return found


def handles(tree: ast.AST) -> bool:
    """Return whether a module handles TensorRT's objects: it imports their types or the loader."""
    return any(API.match(module) for node in ast.walk(tree) for module in _modules(node))


def _modules(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        # "from package import module" names the module last
        return [f"{node.module}.{alias.name}" for alias in node.names] + [node.module or ""]
    return []


def _imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        for module in _modules(node):
            if module.split(".")[0].startswith("tensorrt"):
                yield f"line {getattr(node, 'lineno', 0)}: imports {module}; use library.load"


def _loads(tree: ast.AST) -> Iterator[str]:
    for call in [*_calls(tree, "import_module"), *_calls(tree, "__import__")]:
        module = call.args[0]
        if isinstance(module, ast.Constant) and str(module.value).startswith("tensorrt"):
            yield f"line {call.lineno}: imports {module.value!s}; use library.load"


def _computed(tree: ast.AST) -> list[ast.Call]:
    calls = [*_calls(tree, "import_module"), *_calls(tree, "__import__")]
    return [call for call in calls if not isinstance(call.args[0], ast.Constant)]


def _uncast(tree: ast.AST) -> Iterator[str]:
    cast = [call.args[1] for call in _calls(tree, "cast") if ast.unparse(call.args[0]) == "Module"]
    good = {id(value) for value in cast}
    for call in _computed(tree):
        if id(call) not in good and not _named(tree, call, good):
            yield f"line {call.lineno}: the module is used without a cast to Module"


def _named(tree: ast.AST, call: ast.Call, good: set[int]) -> bool:
    """Return whether a call's value gets a name, and that is used only as ``good`` values are."""
    names = {
        ast.unparse(node.targets[0])
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and node.value is call
    }
    uses = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Name) and node.id in names and isinstance(node.ctx, ast.Load)
    ]
    return bool(names) and all(id(use) in good for use in uses)


def _strings(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        named = node.id if isinstance(node, ast.Name) else ""
        named = node.attr if isinstance(node, ast.Attribute) else named
        if named in BY_STRING | {"__dict__", "__getattribute__"}:
            yield f"line {getattr(node, 'lineno', 0)}: {named} takes members by string"
        if isinstance(node, ast.Subscript):
            member = isinstance(node.slice, ast.Constant)
            if member and ast.unparse(node.value).endswith("__members__"):
                yield f"line {node.lineno}: {ast.unparse(node)}: declare the member"


def _any(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        named = node.id if isinstance(node, ast.Name) else ""
        named = node.attr if isinstance(node, ast.Attribute) else named
        if named in ("Any", "ModuleType"):
            yield f"line {getattr(node, 'lineno', 0)}: {named} in a module that handles TensorRT"


def _casts(tree: ast.AST) -> Iterator[str]:
    for call in _calls(tree, "cast"):
        if ast.unparse(call.args[0]).removeprefix("api_run.") != "Module":
            yield f"line {call.lineno}: {ast.unparse(call)}"


def _calls(tree: ast.AST, name: str) -> list[ast.Call]:
    return [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] == name
    ]


def _ignores(source: str) -> Iterator[str]:
    for token in tokenize.generate_tokens(StringIO(source).readline):
        found = re.search(r"type:\s*ignore(?:\[([\w, -]+)\])?", token.string)
        if token.type == tokenize.COMMENT and found:
            codes = {code.strip() for code in (found[1] or "").split(",")}
            if not (token.line.lstrip().startswith("class ") and codes <= IGNORED):
                yield f"line {token.start[0]}: {found[0]}"


def _derived(tree: ast.AST, source: str) -> Iterator[str]:
    lines = source.splitlines()
    classes = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef) and "type: ignore" in lines[node.lineno - 1]
    ]
    for derived in classes:
        yield from _inherited(derived)
    typed = {
        id(node.value.func)
        for node in ast.walk(tree)
        if isinstance(node, ast.AnnAssign | ast.Return) and isinstance(node.value, ast.Call)
    }
    names = {derived.name for derived in classes}
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id in names and id(node) not in typed:
            yield f"line {node.lineno}: an object of {node.id} gets no type"


def _inherited(derived: ast.ClassDef) -> Iterator[str]:
    """Yield the members that a class uses and does not have in its own source."""
    own = {node.name for node in derived.body if isinstance(node, ast.FunctionDef)}
    uses = [
        node
        for node in ast.walk(derived)
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) in ("self", "super()")
    ]
    own |= {node.attr for node in uses if isinstance(node.ctx, ast.Store)}
    for node in uses:
        if node.attr not in own:
            yield f"line {node.lineno}: {ast.unparse(node)} of {derived.name} is not declared"
