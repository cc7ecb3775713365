"""The version agrees everywhere, can be written everywhere, and the same source gives the same wheels each time."""

from __future__ import annotations

import datetime
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("packaging_version", ROOT / "packaging/version.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


version = tool()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The files that have the version in them, and the CHANGELOG with something to release."""
    for path, _, _ in version.found():
        target = tmp_path / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    (tmp_path / "CHANGELOG.md").write_text("# Changelog\n\n## Unreleased\n\n- Something.\n")
    return tmp_path


def test_the_version_is_the_same_everywhere():
    assert version.VERSION.fullmatch(version.current())


def test_a_version_is_written_everywhere_and_the_changelog_gets_its_day(checkout: Path):
    old = version.current(checkout)
    version.write("9.8.7rc1", checkout, datetime.date(2031, 2, 3))
    assert version.current(checkout) == "9.8.7rc1"
    assert "## 9.8.7rc1 (2031-02-03)\n\n- Something." in (checkout / "CHANGELOG.md").read_text()
    assert version.is_dated("9.8.7rc1", checkout) and not version.is_dated(old, checkout)
    assert not [path for path, _, _ in version.found(checkout) if old in path.read_text()]


@pytest.mark.parametrize("place", version.PLACES, ids=lambda place: place[0])
def test_one_place_that_says_another_version_is_found(checkout: Path, place: tuple[str, str]):
    path = sorted(checkout.glob(place[0]))[-1]
    path.write_text(path.read_text().replace(version.current(checkout), "3.3.3"))
    with pytest.raises(ValueError, match=r"3\.3\.3"):
        version.current(checkout)


def test_nothing_is_released_without_a_word_in_the_changelog_or_under_a_strange_version(checkout: Path):
    (checkout / "CHANGELOG.md").write_text("# Changelog\n\n## Unreleased\n\n## 0.0.1 (2020-01-01)\n")
    before = version.current(checkout)
    for wrong in ("1.2.3", "v1.2.3", "1.2"):
        with pytest.raises(ValueError):
            version.write(wrong, checkout)
    assert version.current(checkout) == before


def test_wheels_are_the_same_each_time(tmp_path: Path):
    sums = []
    for name in ("first", "second"):
        source, out = tmp_path / name / "source", tmp_path / name / "out"
        out.mkdir(parents=True)
        for part in ("ha_controller", "plugins/manual", "packaging"):
            shutil.copytree(ROOT / part, source / part, ignore=shutil.ignore_patterns("__pycache__"))
        for part in ("pyproject.toml", "README.md", "LICENSE"):
            shutil.copy(ROOT / part, source / part)
        environ = {**os.environ, "SOURCE_DATE_EPOCH": "1700000000", "PYTHON": sys.executable}
        subprocess.run([source / "packaging/build-wheels", out, "manual"], env=environ, check=True, capture_output=True)
        sums.append({each.name: hashlib.sha256(each.read_bytes()).hexdigest() for each in out.iterdir()})
    assert len(sums[0]) == 2 and sums[0] == sums[1]
