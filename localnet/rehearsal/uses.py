"""Which calls, storage items, constants and runtime APIs some source code names: found by reading it, never by running
it.

A chain's names appear in code in a few forms, and these are looked for in the syntax tree of every file:

    calls.SubtensorModule.set_weights, st.System.Account        an attribute of something named like a pallet or API
    from .storage import SubtensorModule as st; st.Tempo        ... also under another name
    ("SubtensorModule", "set_weights")                          two texts next to each other
    chain.query("Uids", netuid)                                 the name of an item, given to something that queries

Only names that a document has count, so that what is found can be looked up. Code that makes up names as it runs is not
understood: what is not found may still be used.
"""

from __future__ import annotations

import ast
import importlib.util
import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from localnet.codec.compare import Kind
from localnet.codec.document import Document
from localnet.errors import ConfigError

QUERIES = ("query", "query_map", "get_storage", "_query")
DEFAULT_PALLET = "SubtensorModule"  # of an item that is named alone
Use = tuple[Kind, str]


class Names:
    """What the documents have, by (pallet or API, member)."""

    def __init__(self, documents: Iterable[Document]) -> None:
        self.members: dict[tuple[str, str], set[Kind]] = {}
        for document in documents:
            self._add("storage", document.storage)
            self._add("constant", document.constants)
            self._add("call", ((pallet, call) for pallet, calls in document.calls.items() for call in calls))
            apis = ((api["name"], method["name"]) for api in document.tree.get("apis", ()) for method in api["methods"])
            self._add("api", apis)
        self.owners = {owner for owner, _ in self.members}

    def _add(self, kind: Kind, pairs: Iterable[tuple[str, str]]) -> None:
        for pair in pairs:
            self.members.setdefault(pair, set()).add(kind)

    def uses(self, owner: str, member: str) -> Iterator[Use]:
        for kind in self.members.get((owner, member), ()):
            yield kind, f"{owner}_{member}" if kind == "api" else f"{owner}.{member}"


def scan(paths: Sequence[Path], documents: Iterable[Document]) -> set[Use]:
    """Everything that Python files below `paths` name. Raises ConfigError for a path that does not exist or a file that
    is no Python."""
    names = Names(documents)
    found: set[Use] = set()
    for path in paths:
        ensure_exists(path)
        for file in [path] if path.is_file() else sorted(path.rglob("*.py")):
            try:
                tree = ast.parse(file.read_bytes(), str(file))
            except (SyntaxError, ValueError) as error:
                raise ConfigError(f"{file} cannot be read as Python: {error}") from error
            found.update(_in_tree(tree, names))
    return found


def ensure_exists(path: Path) -> None:
    """Raises ConfigError."""
    if not path.exists():
        raise ConfigError(f"{path} does not exist: name a Python file, or a directory of them")


def _in_tree(tree: ast.AST, names: Names) -> Iterator[Use]:
    aliases = dict(_aliases(tree, names.owners))
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            owner = _last(node.value)
            yield from names.uses(aliases.get(owner, owner), node.attr)
        elif isinstance(node, (ast.Tuple, ast.List)):
            yield from _side_by_side(node.elts, names)
        elif isinstance(node, ast.Call):
            yield from _side_by_side(node.args, names)
            first = node.args[0] if node.args else None
            if _last(node.func) in QUERIES and isinstance(first, ast.Constant) and isinstance(first.value, str):
                pallet = next((_text(k.value) for k in node.keywords if k.arg == "pallet"), None) or DEFAULT_PALLET
                yield from (use for use in names.uses(pallet, first.value) if use[0] == "storage")


def _aliases(tree: ast.AST, owners: set[str]) -> Iterator[tuple[str, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            yield from ((one.asname, one.name) for one in node.names if one.asname and one.name in owners)


def _side_by_side(nodes: Sequence[ast.expr], names: Names) -> Iterator[Use]:
    texts = [_text(node) for node in nodes]
    for owner, member in itertools.pairwise(texts):
        if owner is not None and member is not None:
            yield from names.uses(owner, member)


def _text(node: ast.expr) -> str | None:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def _last(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def sdk_sources() -> list[Path]:
    """Where the installed bittensor SDK has what it calls and reads; empty without it. Its generated lists of
    everything are left out: what is in them is not used by that."""
    spec = importlib.util.find_spec("bittensor")
    if spec is None or not spec.submodule_search_locations:
        return []
    home = Path(next(iter(spec.submodule_search_locations)))
    return [path for path in sorted(home.iterdir()) if path.suffix == ".py" or (path / "__init__.py").exists()
            if path.name != "_generated"]  # fmt: skip
