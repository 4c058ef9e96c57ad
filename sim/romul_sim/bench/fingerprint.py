"""Fingerprints of code: whether the code that produced a result is unchanged.

A fingerprint covers a module and everything that it imports from given packages, so no list of
files must be maintained. It is a hash of the syntax tree, without docstrings, comments, formatting
and texts of exceptions, because these change no result. It is the same in all versions of Python.
"""

import ast
import hashlib
import importlib.util
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path


@lru_cache
def fingerprint(module: str, within: tuple[str, ...]) -> str:
    """SHA-256, hexadecimal, of a module and of what it imports, directly or indirectly.

    Args:
        module: full name of the module.
        within: packages whose modules are followed; other imports are not.

    Raises:
        ModuleNotFoundError: the module has no Python source.
    """
    found = covered(module, within)
    text = "\n".join(f"{name} {found[name]}" for name in sorted(found))
    return hashlib.sha256(text.encode()).hexdigest()


def covered(module: str, within: tuple[str, ...]) -> dict[str, str]:
    """The modules that a fingerprint covers, with their code in canonical form, by name."""
    found: dict[str, str] = {}
    to_do = [module]
    while to_do:
        name = to_do.pop()
        if name not in found:
            tree = _tree(name)
            found[name] = _canonical(tree)
            # A compiled module has no source; a suite's `identity` must cover it.
            near = {other for other in _imports(tree, name) if _is_in(other, within)}
            to_do += sorted(filter(has_source, near))
    return found


def has_source(module: str) -> bool:
    """Whether a module has Python source, so that it can have a fingerprint."""
    return _source(module) is not None


def mentions(module: str, text: str) -> bool:
    """Whether a module's source contains this text as a literal."""
    nodes = ast.walk(_tree(module))
    return any(isinstance(node, ast.Constant) and node.value == text for node in nodes)


def _is_in(name: str, packages: tuple[str, ...]) -> bool:
    return any(name == package or name.startswith(package + ".") for package in packages)


def _source(name: str) -> Path | None:
    try:
        spec = importlib.util.find_spec(name)
    except ModuleNotFoundError:
        # The name is a member of a module, not a module.
        return None
    # Built-in and compiled modules have no source.
    origin = None if spec is None else spec.origin
    return Path(origin) if origin is not None and origin.endswith(".py") else None


def _tree(name: str) -> ast.Module:
    path = _source(name)
    if path is None:
        raise ModuleNotFoundError(f"module {name!r} has no source to take a fingerprint of")
    return ast.parse(path.read_text(encoding="utf-8"))


def _imports(tree: ast.AST, name: str) -> Iterator[str]:
    """Names of imported modules; for "from package import module" only the module's.

    Args:
        tree: syntax tree of the importing module.
        name: full name of the importing module, to resolve relative imports.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and (base := _base(node, name)):
            for alias in node.names:
                member = f"{base}.{alias.name}"
                yield member if _source(member) else base


def _base(node: ast.ImportFrom, name: str) -> str:
    """The module that names are imported from; "" if it would be above the top package."""
    if not node.level:
        return node.module or ""
    path = _source(name)
    is_package = path is not None and path.stem == "__init__"
    parts = name.split(".")
    above = parts[: max(0, len(parts) + is_package - node.level)]
    return ".".join([*above, *filter(None, [node.module])]) if above else ""


def _canonical(node: object, *, raised: bool = False) -> str:
    """A tree as text, without empty fields, in which versions of Python differ.

    `raised`: the tree is a part of a `raise` statement, whose texts are left out.
    """
    if isinstance(node, list):
        return "[" + ",".join(_canonical(part, raised=raised) for part in node) + "]"
    if not isinstance(node, ast.AST):
        return repr(node)
    raised = raised or isinstance(node, ast.Raise)
    if raised and _is_text(node):
        return "text"
    parts = []
    for name, value in ast.iter_fields(node):
        kept = _without_texts(value) if name == "body" and isinstance(value, list) else value
        if isinstance(node, ast.Constant) or not (kept is None or kept == []):
            parts.append(f"{name}={_canonical(kept, raised=raised)}")
    return f"{type(node).__name__}({','.join(parts)})"


def _is_text(node: ast.AST) -> bool:
    """Whether a node is a string, with or without values in it."""
    literal = isinstance(node, ast.Constant) and isinstance(node.value, str)
    return literal or isinstance(node, ast.JoinedStr)


def _without_texts(body: list[ast.AST]) -> list[ast.AST]:
    """Statements without docstrings and other strings, which have no effect anywhere."""
    return [
        part
        for part in body
        if not (
            isinstance(part, ast.Expr)
            and isinstance(part.value, ast.Constant)
            and isinstance(part.value.value, str)
        )
    ]
