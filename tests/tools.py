"""Programs and modules that tests drive and that may be missing: then a test is skipped, or it fails."""

from __future__ import annotations

import importlib
import os
import shutil
from typing import Any, NoReturn

import pytest

#: Where this is set, every program has to be there.
REQUIRE_TOOLS = "PYTEST_SMTPD_REQUIRE_TOOLS"

#: The variables that tell where a program is that is not, or not by itself, on the PATH.
_VARIABLES = {"exim4": "PYTEST_SMTPD_EXIM", "mailman": "PYTEST_SMTPD_MAILMAN"}

#: Where mail programs are, and the PATH of many users does not lead.
_SYSTEM = "/usr/sbin:/usr/lib/postfix/sbin"


def missing(reason: str) -> NoReturn:
    """Skip the test for want of something; fail it instead where everything has to be there."""
    if REQUIRE_TOOLS in os.environ:
        pytest.fail(reason)
    pytest.skip(reason)


def search_tool(name: str) -> str | None:
    """Return the path of a program, None where there is none."""
    return shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:{_SYSTEM}")


def find_tool(name: str) -> str:
    """Return the path of a program such as "swaks"; where there is none, the test is skipped or fails."""
    variable = _VARIABLES.get(name, "")
    wanted = os.environ.get(variable) or name
    path = search_tool(wanted)
    if path is None:
        missing(f"there is no {wanted}" + (f", and {variable} is not set" if variable and wanted == name else ""))
    return path


def find_module(name: str) -> Any:
    """Return a module that is installed for the tests; where there is none, the test is skipped or fails."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        missing(f"the Python package {name} is not installed")
