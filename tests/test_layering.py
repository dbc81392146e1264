"""The folders are floors: imports go down only."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import pytest_smtpd

PACKAGE = Path(pytest_smtpd.__file__).parent

#: What the modules of a floor may import of ours; beside their own floor.
BELOW = {
    "protocol": set(),
    "network": set(),
    "smtpd": {"protocol", "network"},
    "testing": {"protocol", "network", "smtpd"},
    "suite": {"testing"},
    "plugin": {"suite", "testing"},
    "cli": {"network", "smtpd", "testing"},
    "__main__": {"smtpd", "cli"},
}
SOURCES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def _name(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def _imports(path: Path) -> set[str]:
    """Return the modules of ours that a module imports anywhere in it, TYPE_CHECKING included."""
    package = path.relative_to(PACKAGE).parent.parts
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(["pytest_smtpd", *package[: len(package) + 1 - node.level]]) if node.level else ""
            module = ".".join(part for part in (base, node.module) if part)
            found |= {module} | {f"{module}.{alias.name}" for alias in node.names}
    names = {_name(path) for path in SOURCES}
    return {name for module in found if (name := module.removeprefix("pytest_smtpd.")) in names and name != module}


@pytest.mark.parametrize("path", SOURCES, ids=_name)
def test_imports_go_down_only(path: Path) -> None:
    """A module imports modules of its own floor and of the floors below, and no others."""
    floor = _name(path).partition(".")[0]
    floors = {name.partition(".")[0] for name in _imports(path)}
    assert floors <= BELOW[floor] | {floor}


def test_no_module_imports_itself_in_a_circle() -> None:
    """No chain of imports leads back to its start, not even one that only type checkers see."""
    imports = {_name(path): _imports(path) - {_name(path)} for path in SOURCES}
    while leaves := [name for name, imported in imports.items() if not imported & imports.keys()]:
        for name in leaves:
            del imports[name]
    assert not imports


def test_the_protocol_knows_no_io() -> None:
    """The protocol imports no socket, no selectors, no threading, no time and no ssl."""
    io = {"socket", "selectors", "threading", "time", "ssl", "asyncio", "select"}
    for path in SOURCES:
        if _name(path).startswith("protocol"):
            tree = ast.parse(path.read_text("utf-8"))
            names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
            names |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
            assert not names & io


@pytest.mark.parametrize("path", SOURCES, ids=_name)
def test_modules_are_short(path: Path) -> None:
    """No module has more than 400 lines."""
    assert path.read_text("utf-8").count("\n") <= 400
