"""The package: its public names, and what importing it costs."""

from __future__ import annotations

import inspect
import subprocess
import sys
from importlib.metadata import entry_points

import pytest

import pytest_smtpd


def run_python(code: str) -> list[str]:
    """Run code in a new interpreter where warnings are errors; return the words that it prints."""
    command = [sys.executable, "-W", "error", "-c", code]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603 - code from this file
    return ran.stdout.split()


@pytest.mark.parametrize("name", pytest_smtpd.__all__)
def test_public_names_are_there_and_documented(name: str) -> None:
    """Every public name can be imported from the package, and has a docstring of its own."""
    value = getattr(pytest_smtpd, name)
    assert vars(value)["__doc__"] if inspect.isclass(value) else value.__doc__  # classes would inherit one
    assert inspect.ismodule(value) or value.__name__ == name


@pytest.mark.parametrize("name", pytest_smtpd.__all__)
def test_public_names_are_found_when_they_are_asked_for(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A public name that the package does not hold yet is found, and is the same object as ever."""
    value = getattr(pytest_smtpd, name)
    monkeypatch.delattr(pytest_smtpd, name)
    assert name not in vars(pytest_smtpd)
    assert getattr(pytest_smtpd, name) is value


@pytest.mark.parametrize("name", pytest_smtpd.__all__)
def test_each_public_name_can_be_imported_first(name: str) -> None:
    """Whichever public name is asked for first, it can be imported, and is the same object afterwards."""
    code = f"import pytest_smtpd as p; from pytest_smtpd import {name} as imported; print(imported is p.{name})"
    assert run_python(code) == ["True"]


def test_public_names_are_sorted_and_all_that_dir_shows() -> None:
    """`dir` shows the public names, all of them, and nothing else, even before anything was used."""
    assert dir(pytest_smtpd) == sorted(pytest_smtpd.__all__)
    assert run_python("import pytest_smtpd; print(*dir(pytest_smtpd))") == dir(pytest_smtpd)


def test_import_of_all_names() -> None:
    """`from pytest_smtpd import *` imports the public names."""
    code = "from pytest_smtpd import *; print(*sorted(globals()))"
    assert [name for name in run_python(code) if not name.startswith("__")] == sorted(pytest_smtpd.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    """A name that is not public raises AttributeError with the usual text, so that hasattr works."""
    with pytest.raises(AttributeError, match=r"^module 'pytest_smtpd' has no attribute 'Server'$"):
        pytest_smtpd.Server  # noqa: B018 - reading the attribute is the test
    assert not hasattr(pytest_smtpd, "Server")


def test_importing_the_package_imports_nothing_else_of_ours() -> None:
    """The package alone is imported by `import pytest_smtpd`, which pytest does at every start."""
    code = "import sys, pytest_smtpd; print(*(name for name in sys.modules if name.startswith('pytest_smtpd')))"
    assert run_python(code) == ["pytest_smtpd"]


def test_the_entry_point_is_named_after_the_package() -> None:
    """The plugin is found by the entry point pytest_smtpd, and not "smtpd", which is smtpdfix's."""
    ours = {point.name for point in entry_points(group="pytest11") if point.value.startswith("pytest_smtpd")}
    assert ours == {"pytest_smtpd"}
    (point,) = entry_points(group="pytest11", name="pytest_smtpd")
    assert point.value == "pytest_smtpd.plugin"
    assert point.load().__name__ == "pytest_smtpd.plugin"
