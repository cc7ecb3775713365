"""Each package that we ask for has a reason, each one that is locked has its licence. `--accept` writes that page."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
REASONS = ROOT / "docs/decisions/0015-every-dependency-has-a-reason.md"
LICENCES = ROOT / "docs/licences.md"
LOCK = ROOT / "requirements.lock"


@pytest.fixture(scope="module")
def sbom() -> ModuleType:
    spec = importlib.util.spec_from_file_location("sbom", ROOT / "packaging/sbom.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_dependency_has_a_reason_and_nothing_else_has(sbom: ModuleType):
    rows = re.findall(r"^\| `([^`]+)` \| ([^|]+) \| ([^|]+) \|$", REASONS.read_text(), re.M)
    asked = sbom.asked_for_by_us()
    assert [name for name, _, _ in rows] == sorted(asked)
    assert [name for name, _, reason in rows if len(reason) < 20] == []
    for name, told, _ in rows:
        whom = {each.strip() for each in told.split(",")}
        ours = {
            "core package" if each == "ha-controller" else each.removeprefix("ha-controller-") for each in asked[name]
        }
        plugins = {path.parent.name for path in ROOT.glob("plugins/*/pyproject.toml")}
        assert ours == whom or (whom == {"core package", "every plugin"} and ours == {"core package"} | plugins), name


def test_every_locked_package_has_its_licence(sbom: ModuleType, accept: bool):
    page = sbom.page(sbom.of_the_lock(LOCK))
    if accept:
        LICENCES.write_text(page)
    assert LICENCES.read_text() == page
    listed = set(re.findall(r"^\| `([^`]+)` \| [^|]+ \| [^|]+ \|", page, re.M))
    assert listed == {sbom.canonical(name) for name in re.findall(r"^([A-Za-z0-9._-]+)==", LOCK.read_text(), re.M)}
    assert "not told" not in page


def test_the_bill_of_materials_is_the_same_each_time_and_names_all(sbom: ModuleType):
    found = sbom.of_the_lock(LOCK)
    bill = sbom.bill(found)
    assert bill == sbom.bill(dict(reversed(found.items())))
    assert {each["name"] for each in bill["components"]} == set(found) - {"ha-controller"}
