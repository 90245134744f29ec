"""Dependencies point one way: driver <- core <- python/proact; in python/proact in the order of LAYERS."""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "python" / "proact"

# A layer may import itself and the layers before it.
LAYERS = [
    "_core",
    "tls",
    "streams",
    "signals",
    "subprocesses",
    "choice",
    "reports",
    "sockets",
    "handover",
    "loop",
    "runner",
    "threads",
    "fs",
    "green",
    "policy",
    "gunicorn",
    "lab",
    "cli",
]


def layer_of(path: Path) -> str | None:
    name = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    return name if name in LAYERS else None


def imported(path: Path) -> set[str]:
    """The layers that a file imports at run time, in any spelling; imports for types only don't count."""
    package = ("proact", *path.relative_to(PACKAGE).parts[:-1])
    found = set()
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name.split(".") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = [*package[: len(package) - node.level + 1]] if node.level else []
            base += node.module.split(".") if node.module else []
            names = [[*base, alias.name] for alias in node.names]
        else:
            continue
        found |= {name[1] for name in names if name[0] == "proact" and len(name) > 1 and name[1] in LAYERS}
    return found


FILES = [path for path in sorted(PACKAGE.rglob("*.py")) if layer_of(path)]


def test_every_module_has_its_layer() -> None:
    modules = {path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in PACKAGE.rglob("*.py")}
    assert modules - {"__init__", "__main__"} <= set(LAYERS)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_python_layers(path: Path) -> None:
    layer = layer_of(path)
    assert layer is not None
    above = LAYERS[LAYERS.index(layer) + 1 :]
    assert not imported(path) & set(above)


@pytest.mark.parametrize(
    ("crate", "ours"),
    [("driver", set()), ("lab", set()), ("core", {"proact-driver", "proact-lab"})],
)
def test_crates(crate: str, ours: set[str]) -> None:
    manifest = tomllib.loads((ROOT / "crates" / crate / "Cargo.toml").read_text())
    names = set(manifest["dependencies"])
    assert {name for name in names if name.startswith("proact")} == ours
    assert ("pyo3" in names) == (crate == "core")
