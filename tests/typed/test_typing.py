"""Types: what type checkers make of code that uses the package."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tools import missing

import pytest_smtpd

if TYPE_CHECKING:
    from collections.abc import Callable

USAGE = Path(__file__).with_name("usage.py")

#: Strict, with only pyright's own comments, of which none may be idle.
PYRIGHT = {
    "extraPaths": [str(Path(pytest_smtpd.__file__).parents[1])],
    "typeCheckingMode": "strict",
    "enableTypeIgnoreComments": False,
    "reportUnnecessaryTypeIgnoreComment": "error",
}


def check(directory: Path, module: str, *arguments: str) -> str:
    """Run a type checker with nothing but these arguments; return what it says."""
    if find_spec(module) is None:
        missing(f"{module} is not installed")
    command = [sys.executable, "-m", module, *arguments]
    environment = {**os.environ, "PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"}
    ran = subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True, check=False)  # noqa: S603 - arguments from this file
    return ran.stdout + ran.stderr


def check_with_mypy(directory: Path) -> str:
    """Check the files of a directory with mypy."""
    return check(directory, "mypy", "--strict", "--config-file=", ".")


def check_with_pyright(directory: Path) -> str:
    """Check the files of a directory with pyright."""
    directory.joinpath("pyrightconfig.json").write_text(json.dumps(PYRIGHT), "utf-8")
    return check(directory, "pyright", "--pythonpath", sys.executable)


CHECKERS = pytest.mark.parametrize(
    ("checker", "fine"),
    [
        pytest.param(check_with_mypy, "Success: no issues found in 1 source file\n", id="mypy"),
        pytest.param(check_with_pyright, "0 errors, 0 warnings, 0 informations", id="pyright"),
    ],
)


@CHECKERS
def test_types(tmp_path: Path, checker: Callable[[Path], str], fine: str) -> None:
    """Type checkers infer what `assert_type` says, and find all mistakes that are noted, and no others."""
    shutil.copy(USAGE, tmp_path)
    assert checker(tmp_path).startswith(fine)


@CHECKERS
def test_other_mistakes_are_found(tmp_path: Path, checker: Callable[[Path], str], fine: str) -> None:
    """A wrong expectation, and a mistake noted where there is none, are errors: the test above can fail."""
    tmp_path.joinpath("wrong.py").write_text(
        "from typing import assert_type\n"
        "from pytest_smtpd import Message, RecordingServer\n"
        "def use(server: RecordingServer) -> None:\n"
        "    assert_type(server.assert_received(2), Message)\n"
        "    server.clear()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]\n",
        "utf-8",
    )
    said = checker(tmp_path)
    assert not said.startswith(fine)
    assert "wrong.py:4:" in said
    assert "wrong.py:5:" in said
