"""A peer that is missing skips a test on a developer's machine, and fails it in continuous integration."""

from __future__ import annotations

from collections.abc import Callable

import pytest


def test_a_missing_peer_skips_here_and_fails_in_ci(
    require_peer: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="no-such-program"):
        require_peer("no-such-program")
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="no-such-program"):
        require_peer("no-such-program")
    assert require_peer("sh").endswith("sh")
