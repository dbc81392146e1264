"""The wheel: what is in it, what it says of itself, and that it works where nothing but pytest is installed."""

from __future__ import annotations

import email
import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from configparser import ConfigParser
from importlib.metadata import distribution
from pathlib import Path
from typing import TYPE_CHECKING
from zipfile import ZipFile

import pytest
from packaging.requirements import Requirement

if TYPE_CHECKING:
    from collections.abc import Iterator
    from email.message import Message

PROJECT = Path(__file__).parent.parent

SUITE = """
import smtplib
import sys

import pytest_smtpd


def test_mail(smtpd_server):
    with smtplib.SMTP(*smtpd_server.address) as client:
        client.sendmail("ada@example.org", ["bob@example.org"], b"Subject: Hello\\r\\n\\r\\nHow are you?\\r\\n")
    assert smtpd_server.assert_received(subject="Hello").text.strip() == "How are you?"
    assert pytest_smtpd.__file__.startswith(sys.prefix)
"""


def run(*command: str | Path, cwd: Path) -> str:
    """Run a command with a clean environment; return what it prints."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "PYTHON"))}
    ran = subprocess.run(  # noqa: S603 - commands from this file
        command, cwd=cwd, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    assert ran.returncode == 0, ran.stdout
    return ran.stdout


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel, once; with the network only where the build backend is not installed."""
    directory = tmp_path_factory.mktemp("wheel")
    isolation = ["--no-isolation"] if importlib.util.find_spec("hatchling") else []
    run(sys.executable, "-m", "build", "--wheel", *isolation, "--outdir", directory, PROJECT, cwd=directory)
    (path,) = directory.iterdir()
    return path


@pytest.fixture(scope="session")
def names(wheel: Path) -> set[str]:
    """Return the names of the files in the wheel."""
    with ZipFile(wheel) as archive:
        return set(archive.namelist())


@pytest.fixture(scope="session")
def metadata(wheel: Path) -> Message:
    """Return the wheel's METADATA."""
    with ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return email.message_from_bytes(archive.read(name))


def requirements_of_pytest() -> Iterator[str]:
    """Yield the names of pytest and of all distributions that it requires here."""
    waiting, seen = ["pytest"], set()
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            yield name
            required = map(Requirement, distribution(name).requires or [])
            waiting += [need.name for need in required if need.marker is None or need.marker.evaluate({"extra": ""})]


@pytest.fixture(scope="session")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the interpreter of a new environment that has the wheel and pytest, copied from here, and no more."""
    directory = tmp_path_factory.mktemp("environment")
    venv.create(directory, symlinks=os.name != "nt")
    paths = {"base": str(directory), "platbase": str(directory)}
    site_packages = Path(sysconfig.get_path("purelib", "venv", paths))
    for name in requirements_of_pytest():
        for file in distribution(name).files or []:
            if ".." not in file.parts and file.suffix != ".pyc":
                target = site_packages / file
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file.locate(), target)
    with ZipFile(wheel) as archive:
        archive.extractall(site_packages)
    return Path(sysconfig.get_path("scripts", "venv", paths), "python")


def test_the_wheel_has_the_package_and_its_metadata_only(names: set[str]) -> None:
    """The wheel has every file of the package, py.typed included, its metadata and licence, and nothing else."""
    package = {path for path in (PROJECT / "pytest_smtpd").rglob("*") if path.is_file() and path.suffix != ".pyc"}
    in_package = {name for name in names if name.startswith("pytest_smtpd/")}
    assert in_package == {path.relative_to(PROJECT).as_posix() for path in package}
    assert "pytest_smtpd/py.typed" in in_package
    (dist_info,) = {name.partition("/")[0] for name in names - in_package}
    assert dist_info.startswith("pytest_smtpd_server-")
    assert {name.partition("/")[2] for name in names - in_package} == {
        "METADATA",
        "WHEEL",
        "RECORD",
        "entry_points.txt",
        "licenses/LICENSE",
    }


def test_the_wheel_is_for_any_python_3_and_platform(wheel: Path) -> None:
    """The wheel is pure Python."""
    assert wheel.name.endswith("-py3-none-any.whl")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("Name", "pytest-smtpd-server"),
        ("Requires-Python", ">=3.11"),
        ("License-Expression", "MIT"),
        ("Classifier", "Framework :: Pytest"),
        ("Classifier", "Typing :: Typed"),
        ("Classifier", "Programming Language :: Python :: 3.11"),
        ("Classifier", "Programming Language :: Python :: 3.13"),
    ],
)
def test_metadata_say(metadata: Message, field: str, value: str) -> None:
    """The metadata say what package indexes and installers go by."""
    assert value in metadata.get_all(field, [])


def test_the_wheel_brings_the_plugin_and_the_command(wheel: Path) -> None:
    """Whoever installs the wheel gets the plugin, under its own name, and the command pytest-smtpd."""
    with ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/entry_points.txt"))
        points = ConfigParser(delimiters="=")
        points.read_string(archive.read(name).decode())
    assert {group: dict(points[group]) for group in points.sections()} == {
        "console_scripts": {"pytest-smtpd": "pytest_smtpd.__main__:main"},
        "pytest11": {"pytest_smtpd": "pytest_smtpd.plugin"},
    }


def test_pytest_is_the_only_dependency(metadata: Message) -> None:
    """Whoever installs the plugin gets pytest, 8 or later, and nothing more."""
    required = [Requirement(line) for line in metadata.get_all("Requires-Dist", [])]
    assert [str(need) for need in required if "extra" not in str(need.marker)] == ["pytest>=8"]


def test_it_works_with_nothing_but_pytest(python: Path, tmp_path: Path) -> None:
    """In a new environment with the wheel and pytest only, a suite that sends mail passes, without a warning."""
    (tmp_path / "test_suite.py").write_text(SUITE, "utf-8")
    assert "1 passed" in run(python, "-I", "-m", "pytest", "-W", "error", "-q", cwd=tmp_path)


def test_it_can_be_imported_without_installing_more(python: Path, tmp_path: Path) -> None:
    """In that environment, every module of the package can be imported."""
    code = (
        "import importlib, pkgutil, pytest_smtpd as package\n"
        "for module in pkgutil.walk_packages(package.__path__, 'pytest_smtpd.'):\n"
        "    if not module.name.endswith('__main__'):\n"
        "        print(importlib.import_module(module.name).__name__)\n"
    )
    printed = run(python, "-I", "-W", "error", "-c", code, cwd=tmp_path)
    assert {"pytest_smtpd.plugin", "pytest_smtpd.testing.recording"} <= set(printed.split())
