"""The page of the metrics, the alerts and the dashboard speak of what there is, and of all of it."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/metrics.md").read_text()
RULES = (ROOT / "packaging/prometheus/rules.yml").read_text()
DASHBOARD = (ROOT / "packaging/grafana/ha-controller.json").read_text()
CODE = (ROOT / "ha_controller/app/metrics.py").read_text()
MADE = {f"ha_controller_{name}" for name in re.findall(r'(?:gauge|counter|histogram)\("(\w+)"', CODE)}
HISTOGRAMS = re.findall(r'histogram\("(\w+)"', CODE)
PARTS = {f"ha_controller_{name}_{part}" for name in HISTOGRAMS for part in ("bucket", "sum", "count")}


def named_in(text: str) -> set[str]:
    return set(re.findall(r"\bha_controller_\w+", text))


def test_every_metric_is_on_the_page_and_no_other():
    assert set(re.findall(r"^\| `(ha_controller_\w+)` \|", PAGE, re.M)) == MADE
    assert len(MADE) > 50


def test_what_is_counted_has_the_names_that_prometheus_wants():
    counters = set(re.findall(r'counter\("(\w+)"', CODE))
    assert {name for name in counters if not name.endswith("_total")} == set()
    assert {name for name in HISTOGRAMS if not name.endswith("_seconds")} == set()
    assert len(counters) > 10
    assert len(HISTOGRAMS) > 5


@pytest.mark.parametrize("text", [RULES, DASHBOARD], ids=["alerts", "dashboard"])
def test_only_metrics_that_there_are_are_used(text):
    assert named_in(text) - MADE - PARTS == set()
    assert named_in(text)


def test_every_alert_has_its_section_and_leads_there():
    alerts = re.findall(r"- alert: (\w+)", RULES)
    assert re.findall(r"^### (\w+)$", PAGE, re.M) == alerts
    assert re.findall(r"runbook_url: docs/metrics.md#(\w+)", RULES) == [alert.lower() for alert in alerts]


def test_the_dashboard_is_one():
    panels = json.loads(DASHBOARD)["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)


@pytest.mark.peer
def test_the_alerts_fire_when_they_must_and_only_then(require_peer):
    promtool = require_peer("promtool")
    folder = ROOT / "packaging/prometheus"
    for what in (["check", "rules", "rules.yml"], ["test", "rules", "rules_test.yml"]):
        ended = subprocess.run([promtool, *what], cwd=folder, capture_output=True, text=True, timeout=60, check=False)
        assert ended.returncode == 0, ended.stdout + ended.stderr
    tested = re.findall(r"name: (\w+) (fires|is silent)", (folder / "rules_test.yml").read_text())
    alerts = re.findall(r"- alert: (\w+)", RULES)
    assert sorted(tested) == sorted((alert, how) for alert in alerts for how in ("fires", "is silent"))
