"""The command line says what is wrong with a file, and needs no controller for one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from world import Cloud

from ha_controller.cli.client import Failure
from ha_controller.cli.replay import replay
from ha_controller.flight.text import written


def run(*words: str) -> None:
    replay.main(list(words), standalone_mode=False)


@pytest.mark.parametrize(
    ("content", "code", "said"),
    [
        (None, 3, "No such file or directory. Name a file, or the number of an incident"),
        (b"", 1, "This is no flight record"),
        (b"\xff\xfe\x00", 1, "this is no flight record, it is not text"),
        (b'{"format": "ha-controller flight record", "version": 9, "ha_controller": "9.1"}\n', 1, "Replay it with the"),
    ],
)
def test_a_file_that_is_no_record_is_refused_with_a_sentence(
    tmp_path: Path, content: bytes | None, code: int, said: str
):
    path = tmp_path / "record"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(Failure, match=said) as failure:
        run(str(path))
    assert failure.value.code == code
    assert str(path) in failure.value.text


def test_an_incident_needs_the_running_controller(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("HA_SOCKET", str(tmp_path / "nowhere"))
    with pytest.raises(Failure, match="is not reachable") as failure:
        run("12")
    assert failure.value.code == 7


def test_a_file_is_replayed_with_the_settings_of_then(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    cloud = Cloud()
    cloud.run(6)
    cloud.kill(3, "off")
    cloud.run(10)
    path = tmp_path / "12"  # a file goes before an incident
    path.write_bytes(b"".join(written(cloud.recorder.cut([1], cloud.now, "the test ends").record())))
    run(str(path), "-o", "json")
    assert json.loads(capsys.readouterr().out)["same"]
    run(str(path))
    assert "With the settings of then everything is decided as it was." in capsys.readouterr().out


def test_a_configuration_with_mistakes_is_told_with_all_of_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    cloud = Cloud()
    path, config = tmp_path / "record", tmp_path / "new.toml"
    path.write_bytes(b"".join(written(cloud.recorder.cut([], cloud.now, "the test ends").record())))
    config.write_text('mode = "atuo"\n')
    with pytest.raises(SystemExit) as end:
        run(str(path), "--config", str(config))
    assert end.value.code == 78
    assert "in the configuration" in capsys.readouterr().err
