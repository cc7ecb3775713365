"""CI follows the pages literally, on a layer over its own root; `make try-pages` takes a fresh root of debootstrap."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

import pytest

from tests.ship.pages import ROOT, Block, blocks, table
from tests.ship.walks import WALKED, WAYS

PAGES = sorted({page for page, _ in WALKED} | {"docs/container.md", "docs/opennebula-user.md", "docs/renewal.md"})


@pytest.mark.parametrize("block", [each for page in PAGES for each in blocks(page)], ids=str)
def test_each_block_of_a_page_that_is_followed_is_run_or_says_why_not(block: Block):
    assert block.not_run or (block.page, block.heading) in WALKED


def test_what_is_said_to_be_followed_is_on_the_pages():
    for page, heading in WALKED:
        assert [each for each in blocks(page, heading) if not each.not_run] or table(page, heading)


def test_a_block_knows_its_place_its_mark_and_the_readers_own_words():
    [first, second] = blocks("README.md", "Try it")
    assert (first.not_run, "make test" in second.not_run) == ("", True)
    assert str(first) == f"README.md:{(ROOT / 'README.md').read_text().splitlines().index('    ' + first.lines[0]) + 1}"
    assert first.text({"hang": "partition"}).endswith('partition"        # or partition, cord-pulled, bmc-dead')
    with pytest.raises(ValueError, match="there is no HOST in it"):
        first.text({"HOST": "kvm-01"})


@pytest.mark.peer
@pytest.mark.slow
@pytest.mark.parametrize("way", ["pip", "deb", "ansible", "container"])
def test_a_new_user_follows_the_pages(way: str, require_peer: Callable[[str], str]):
    assert way in WAYS
    for program in ("unshare", "ip", "sshd", "dpkg-deb", *(("buildah", "crun") if way == "container" else ())):
        require_peer(program)
    if os.geteuid() != 0:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("it makes a machine out of namespaces, as root")
    done = subprocess.run(
        [sys.executable, "-m", "tests.ship.walks", way],
        cwd=ROOT,
        env={"TRY_ROOT": "/", **os.environ},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-3000:]
