"""Which VMs are on a host, asked of a real sshd on loopback whose `virsh` is a script that writes what libvirt does."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from ha_controller.adapters.domains import COMMAND, DomainReader, NoList, domains_in
from ha_controller.adapters.leftovers import DomainDestroyer
from ha_controller.adapters.ssh_login import SshLogin
from ha_controller.core.effects import AskDomains, DestroyDomain
from ha_controller.core.events import DomainDestroyed, DomainsRead
from ha_controller.core.model import Vm
from ha_controller.plugin import Target
from tests.peers.ssh_host import Sshd, virsh

LIST = """\
 Id   Name          State
------------------------------
 1    one-42        running
 2    one-7         paused
 3    my own vm     running
 -    one-9         shut off
"""


@pytest.fixture
def sshd(tmp_path: Path, require_peer: Callable[[str], str]) -> Iterator[Sshd]:
    for program in ("ssh-keygen", "sshd"):
        require_peer(program)
    if os.geteuid() != 0:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("needs root")
    made = Sshd(tmp_path / "host")
    yield made
    made.stop()


async def said(sshd: Sshd, *, login: bool = True, target: Target | None = None) -> DomainsRead:
    events: list[DomainsRead] = []
    account = SshLogin(
        username="root", key_file=sshd.folder / "key", known_hosts=sshd.folder / "known_hosts", port=sshd.port
    )
    reader = DomainReader(
        account if login else None,
        targets=lambda: [target or Target(host=3, name="kvm-03", address="127.0.0.1")],
        report=events.append,  # type: ignore[arg-type]
        clock=lambda: 17.0,
    )
    await reader.read(AskDomains(host=3))
    [event] = events
    assert (event.host, event.asked_at) == (3, 17.0)
    return event


@pytest.mark.peer
async def test_a_host_says_which_vms_run_on_it_and_which_are_there_without_running(sshd):
    virsh(sshd, f"cat <<'EOF'\n{LIST}EOF")
    event = await said(sshd)
    assert (event.running, event.others, event.failure) == ((42,), (7,), "")


@pytest.mark.peer
async def test_it_is_asked_for_all_domains_and_changes_nothing(sshd):
    virsh(sshd, f"echo \"$@\" > {sshd.folder}/asked; cat <<'EOF'\n{LIST}EOF")
    assert (await said(sshd)).failure == ""
    assert (sshd.folder / "asked").read_text().split() == ["--readonly", "--connect", "qemu:///system", "list", "--all"]


@pytest.mark.peer
@pytest.mark.parametrize(
    ("script", "failure"),
    [
        ("exit 1", "virsh list ended with exit code 1"),
        (f"cat <<'EOF'\n{LIST}EOF\nexit 1", "exit code 1"),  # libvirtd died in the middle
        ("true", "no complete list of domains"),
        ("kill -9 $PPID", "exit code"),
    ],
)
async def test_an_answer_that_is_no_list_says_nothing_about_any_vm(sshd, script, failure):
    virsh(sshd, script)
    event = await said(sshd)
    assert failure in event.failure
    assert (event.running, event.others) == ((), ())


@pytest.mark.peer
async def test_a_key_that_is_bound_to_another_command_says_nothing(sshd):
    key = (sshd.folder / "key.pub").read_text()
    (sshd.folder / "authorized_keys").write_text(f'command="echo 4c4c4544",restrict {key}')
    assert "is the key bound to another command?" in (await said(sshd)).failure


@pytest.mark.peer
async def test_a_host_that_is_not_who_it_should_be_or_cannot_be_reached_says_nothing(sshd):
    virsh(sshd, f"cat <<'EOF'\n{LIST}EOF")
    sshd.know("other_key")
    assert (await said(sshd)).failure
    sshd.know("host_key")
    assert (await said(sshd)).failure == ""
    sshd.stop()
    assert (await said(sshd)).failure


@pytest.mark.peer
async def test_a_host_that_hangs_says_nothing_and_holds_nobody_up(sshd, monkeypatch):
    monkeypatch.setattr("ha_controller.adapters.domains.ASK_TIMEOUT_S", 0.5)
    virsh(sshd, "exec sleep 60")
    assert "in time" in (await said(sshd)).failure


@pytest.mark.peer
async def test_without_an_account_or_an_address_nobody_is_asked(sshd):
    assert "identity.username is not set" in (await said(sshd, login=False)).failure
    nameless = Target(host=3, name="kvm-03", address="")
    assert (await said(sshd, target=nameless)).failure == "its address is not known"


@pytest.mark.parametrize(
    ("output", "found"),
    [
        (" Id   Name   State\n--------\n\nend of list\n", ((), ())),
        (f"{LIST}end of list\n", ((42,), (7,))),
        (" Id Name State\n 5 one-1 in shutdown\n 6 one-2 crashed\n 7 one-3 pmsuspended\nend of list", ((), (1, 2, 3))),
    ],
)
def test_what_a_complete_list_says(output, found):
    assert domains_in(output) == found


@pytest.mark.parametrize(
    "output",
    [
        "",
        "end of list\n",
        LIST,  # cut off before its end
        f"{LIST[:60]}\nend of list\n".replace(" Id ", " No "),
        " Id Name State\n 1 one-42\nend of list\n",  # without its state
        " Id Name State\n 1 one-4x2 running\nend of list\n",
    ],
)
def test_what_is_not_complete_is_no_list(output):
    with pytest.raises(NoList):
        domains_in(output)


# --- destroying -------------------------------------------------------------------------------------------------------

MOVED = Vm(id=42, name="vm-42", state=3, lcm_state=3, host=5, label="RUNNING")
KEEPS_A_LIST = """case "$*" in
  *list*) printf ' Id   Name   State\\n--------\\n'; [ -e {0}/gone ] || printf ' 1    one-42   running\\n';;
  "--connect qemu:///system destroy one-42") touch {0}/gone; echo 'Domain one-42 destroyed';;
  *) exit 1;;
esac
echo "$@" >> {0}/asked"""


async def destroyed(
    sshd: Sshd, vms: list[Vm], *, leads: bool = True, late: bool = False, vm: int = 42, port: int | None = None
) -> str:
    events: list[DomainDestroyed] = []

    async def read_vms(wanted: Sequence[int]) -> list[Vm]:
        assert list(wanted) == [vm]
        assert port is None, "looked before the login, which may take seconds"
        return vms

    async def may_act(term: int | None) -> bool:
        return leads and term == 7

    account = SshLogin(
        username="root", key_file=sshd.folder / "key", known_hosts=sshd.folder / "known_hosts", port=port or sshd.port
    )
    destroyer = DomainDestroyer(
        account,
        targets=lambda: [Target(host=3, name="kvm-03", address="127.0.0.1")],
        read_vms=read_vms,
        report=events.append,  # type: ignore[arg-type]
        may_act=may_act,
        clock=lambda: 17.0,
    )
    not_after = 16.0 if late else 20.0
    await destroyer.destroy(DestroyDomain(term=7, host=3, incident=1, vm=vm, runs_on=5, attempt=1, not_after=not_after))
    [event] = events
    assert (event.host, event.incident, event.vm, event.attempt) == (3, 1, vm, 1)
    return event.failure


@pytest.mark.peer
async def test_a_leftover_domain_is_destroyed_and_is_then_no_longer_on_the_list(sshd):
    virsh(sshd, KEEPS_A_LIST.format(sshd.folder))
    assert (await said(sshd)).running == (42,)
    assert await destroyed(sshd, [MOVED]) == ""
    assert (await said(sshd)).running == ()


@pytest.mark.peer
@pytest.mark.parametrize(
    "vms",
    [
        [],
        [replace(MOVED, host=3)],
        [replace(MOVED, host=6)],
        [replace(MOVED, lcm_state=16)],
        [replace(MOVED, state=8, lcm_state=0)],
    ],
    ids=["nobody knows it", "it is back here", "it went on", "UNKNOWN", "POWEROFF"],
)
async def test_nothing_is_sent_unless_the_vm_runs_where_it_did_right_before(sshd, vms):
    virsh(sshd, KEEPS_A_LIST.format(sshd.folder))
    assert "not sent" in await destroyed(sshd, vms)
    assert not (sshd.folder / "asked").exists()


@pytest.mark.peer
@pytest.mark.parametrize("how", [{"leads": False}, {"late": True}])
async def test_nothing_is_destroyed_too_late_or_without_the_lead(sshd, how):
    virsh(sshd, KEEPS_A_LIST.format(sshd.folder))
    assert "not sent" in await destroyed(sshd, [MOVED], **how)
    assert not (sshd.folder / "asked").exists()


@pytest.mark.peer
async def test_the_last_look_is_taken_when_the_login_is_done(sshd):
    assert "connection refused" in await destroyed(sshd, [MOVED], port=1)


@pytest.mark.peer
@pytest.mark.parametrize("script", ["exit 1", "kill -9 $PPID"])
async def test_a_destroy_that_does_not_say_that_it_worked_has_failed(sshd, script):
    virsh(sshd, script)
    assert await destroyed(sshd, [MOVED])


@pytest.mark.peer
async def test_a_host_that_hangs_while_it_destroys_holds_nobody_up(sshd, monkeypatch):
    monkeypatch.setattr("ha_controller.adapters.leftovers.DESTROY_TIMEOUT_S", 0.5)
    virsh(sshd, "exec sleep 60")
    assert "in time" in await destroyed(sshd, [MOVED])


def test_the_command_reads_only():
    assert "--readonly" in COMMAND
