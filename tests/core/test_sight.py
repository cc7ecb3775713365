"""What other controllers see: a host that one of them sees alive is not powered off. Nothing else comes of it."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as budget
from hypothesis import strategies as st
from world import SETTINGS, Cloud, seen

from ha_controller.core import life
from ha_controller.core.effects import Answer, Fence, MoveVm, Tell
from ha_controller.core.events import (
    Event,
    EvidenceTaken,
    FenceAccepted,
    FenceReported,
    FenceResult,
    LeadChanged,
    OrderResult,
    SightTold,
    TimePassed,
    Verb,
    VmOrderReported,
)
from ha_controller.core.incident import AttemptOutcome
from ha_controller.core.model import HostState, Reading, SeenAlive, Signal
from ha_controller.core.settings import Policy
from ha_controller.core.shared_cause import WITHIN_S
from ha_controller.core.sight import COUNTS_MIN_S

IF_WRONG = "If one-2 is wrong: stop it, or take its [[controller]] table out here and restart."
ROOT = Path(__file__).parents[2]


def tell(cloud: Cloud, *hosts: int, age_s: float = 0.4, channel: str = "icmp", who: str = "one-2") -> None:
    cloud.feed(
        SightTold(
            controller=who,
            alive=tuple(SeenAlive(host=host, channel=channel, at=cloud.now - age_s) for host in hosts),
        )
    )


def run(cloud: Cloud, seconds: float, *alive: int, channel: str = "icmp") -> None:
    """Let time pass, in which one-2 sees some hosts alive and says so every second."""
    end = cloud.now + seconds
    while cloud.now < end:
        tell(cloud, *alive, channel=channel)
        cloud.run(min(1.0, end - cloud.now))


def fenced(cloud: Cloud) -> list[int]:
    return [order.host for order in cloud.ordered(Fence)]


# --- it vetoes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("power", ["off", "on", "mute"])
def test_a_host_that_another_controller_sees_alive_is_not_powered_off(cloud, power):
    cloud.kill(3, power)
    run(cloud, 120, 3)
    assert not fenced(cloud)
    assert cloud.state(3) is HostState.SUSPECT
    assert cloud.incident(3).hold.startswith("life: one-2 sees it alive")
    assert "icmp from one-2: alive 1." in "\n".join(cloud.controller.state.evidence(3, cloud.now))


def test_when_that_life_ends_the_host_is_powered_off(cloud):
    cloud.kill(3, "off")
    run(cloud, 30, 3)
    ended = cloud.now
    cloud.run(30)
    assert cloud.state(3) is HostState.RECOVERED
    assert COUNTS_MIN_S - 1.5 < cloud.first(Fence) - ended < COUNTS_MIN_S + 1


def test_life_of_before_delays_and_is_no_news(cloud):
    tell(cloud, 3)
    cloud.kill(3, "off")
    cloud.run(30)
    assert cloud.state(3) is HostState.RECOVERED
    assert "sees it alive" not in cloud.told()


def test_life_that_speaks_against_our_silence_is_told_once(cloud):
    cloud.kill(3, "off")
    run(cloud, 60, 3)
    told = [each for each in cloud.ordered(Tell) if "one-2 sees it alive" in each.text]
    assert len(told) == 1
    assert IF_WRONG in told[0].next_step


def test_a_word_is_good_for_a_few_seconds_however_often_it_is_repeated(cloud):
    cloud.kill(3, "off")
    seen_at = cloud.now
    while cloud.now < seen_at + 60:
        tell(cloud, 3, age_s=cloud.now - seen_at)  # as a controller says it that stands still, or from a cache
        cloud.run(1)
    assert cloud.state(3) is HostState.RECOVERED
    assert cloud.first(Fence) - seen_at < COUNTS_MIN_S + 1


def test_a_word_from_the_future_is_one_of_now(cloud):
    cloud.kill(3, "off")
    tell(cloud, 3, age_s=-3600.0)
    cloud.run(30)
    assert cloud.state(3) is HostState.RECOVERED


def test_a_person_cannot_overrule_it(cloud):
    cloud.kill(3, "on")
    run(cloud, 3, 3)
    cloud.operator(Verb.FENCE, host=3)
    assert "one-2 sees it alive" in cloud.ordered(Answer)[-1].text
    run(cloud, 70, 3)
    cloud.operator(Verb.APPROVE, incident=cloud.incident(3).id)
    run(cloud, 20, 3)
    cloud.operator(Verb.CONFIRM_OFF, incident=cloud.incident(3).id)
    run(cloud, 20, 3)
    assert cloud.ordered(Answer)[-1].code == 4
    assert cloud.ordered(Answer)[-1].text.endswith(IF_WRONG)
    assert cloud.state(3) is HostState.SUSPECT
    assert not fenced(cloud)


@pytest.mark.parametrize("who", ["icmp", "icmp from one-2"])
def test_a_move_that_waits_for_the_disk_or_etcd_is_taken_back(cloud, who):
    """Life since the proof voids it, also if nobody has looked at it yet when the order is on record."""
    cloud.deaf = {MoveVm}
    cloud.kill(3, "off")
    cloud.run(10)
    (order, *_), proven_at = cloud.ordered(MoveVm), cloud.incident(3).proof.at

    def life_at(moment: float, host: int = 3) -> EvidenceTaken | SightTold:
        if who == "icmp":
            reading = Reading(host=host, signal=Signal.ALIVE, sent_at=moment)
            return EvidenceTaken(channel="icmp", readings=(reading,))
        return SightTold(controller="one-2", alive=(SeenAlive(host=host, channel="icmp", at=moment),))

    def report(*waiting: Event) -> VmOrderReported | FenceReported | None:
        return cloud.controller.taken_back(order, waiting)

    assert report(TimePassed(), life_at(proven_at), life_at(cloud.now, host=4)) is None, (
        "every host that died has lived"
    )
    found = report(life_at(cloud.now))
    assert isinstance(found, VmOrderReported)
    assert (found.result, found.detail) == (OrderResult.NOT_NOW, f"not sent: {who} answered meanwhile")
    cloud.controller.round([life_at(cloud.now), found, TimePassed()], cloud.now)
    incident = cloud.controller.state.incidents[3]
    assert incident.vm(order.vm).tries == 0
    assert f"{who} answers although the host was proven off" in incident.stopped


def test_a_power_off_that_waits_for_the_disk_is_taken_back(cloud):
    cloud.deaf.add(Fence)
    cloud.kill(3, "off")
    cloud.run(10)
    (order,) = cloud.ordered(Fence)
    word = SightTold(controller="one-2", alive=(SeenAlive(host=3, channel="ssh", at=cloud.now),))
    of_another = SightTold(controller="one-2", alive=(SeenAlive(host=4, channel="ssh", at=cloud.now),))
    of_long_ago = SightTold(controller="one-2", alive=(SeenAlive(host=3, channel="ssh", at=cloud.now - 60),))
    report = cloud.controller.taken_back(order, [TimePassed(), word])
    assert (report.result, report.detail) == (
        FenceResult.NOT_SENT, "not sent: one-2 saw it alive meanwhile"
    )  # fmt: skip
    assert cloud.controller.taken_back(order, [of_another, of_long_ago]) is None


def ordered(cloud: Cloud, result: FenceResult) -> None:
    """A power-off of host 3 leaves and ends like this."""
    cloud.deaf.add(Fence)
    cloud.kill(3, "on")
    while not cloud.ordered(Fence):
        cloud.run(1)
    order = cloud.ordered(Fence)[-1]
    keys = {"host": 3, "incident": order.incident, "attempt": order.attempt}
    cloud.run(1)
    off_read_at = cloud.now - 0.1 if result is FenceResult.OFF_READ else None
    cloud.feed(FenceAccepted(**keys))
    tell(cloud, 3, age_s=0.0)
    cloud.feed(FenceReported(**keys, result=result, off_read_at=off_read_at, detail="no answer"))


def test_life_after_a_power_off_of_unknown_outcome_stops_until_a_person_decides(cloud):
    ordered(cloud, FenceResult.UNVERIFIED)
    cloud.run(60)
    assert len(fenced(cloud)) == 1
    assert "alive after an unverified power-off (one-2 sees it alive)" in cloud.incident(3).stopped
    assert cloud.incident(3).stopped.endswith(f"unfence kvm-03. {IF_WRONG}")


def test_a_person_can_go_on_after_that_when_the_life_has_ended(cloud):
    ordered(cloud, FenceResult.UNVERIFIED)
    cloud.run(1)
    cloud.operator(Verb.RELEASE, incident=cloud.incident(3).id)
    assert "shows life (one-2 sees it alive)" in cloud.ordered(Answer)[-1].text
    cloud.run(30)
    cloud.operator(Verb.RELEASE, incident=cloud.incident(3).id)
    cloud.run(2)
    assert len(fenced(cloud)) == 2


def test_life_after_a_refused_power_off_holds_for_as_long_as_it_lasts(cloud):
    ordered(cloud, FenceResult.REFUSED)
    run(cloud, 20, 3)
    assert len(fenced(cloud)) == 1
    assert cloud.incident(3).hold.startswith("life: ")
    assert not cloud.incident(3).stopped
    cloud.run(10)
    assert len(fenced(cloud)) > 1


def test_life_before_the_order_stops_nothing_after_it(cloud):
    cloud.deaf.add(Fence)
    cloud.kill(3, "on")
    while not cloud.ordered(Fence):
        cloud.run(1)
    order = cloud.ordered(Fence)[-1]
    tell(cloud, 3, age_s=4.0)
    keys = {"host": 3, "incident": order.incident, "attempt": order.attempt}
    cloud.feed(FenceReported(**keys, result=FenceResult.UNVERIFIED, off_read_at=None, detail="no answer"))
    cloud.run(10)
    assert not cloud.incident(3).stopped
    assert len(fenced(cloud)) > 1


def test_life_after_off_was_read_voids_it(cloud):
    ordered(cloud, FenceResult.OFF_READ)
    cloud.run(20)
    assert cloud.incident(3).attempts[-1].outcome is AttemptOutcome.VOIDED
    assert "bmc reads off, but icmp from one-2 answers" in cloud.incident(3).stopped
    assert cloud.incident(3).stopped.endswith(IF_WRONG)
    assert not cloud.ordered(MoveVm)


def test_life_after_the_proof_stops_the_moves(cloud):
    cloud.deaf.add(MoveVm)
    cloud.kill(3, "off")
    while cloud.state(3) is not HostState.FENCED or not cloud.ordered(MoveVm):
        cloud.run(1)
    moves = len(cloud.ordered(MoveVm))
    tell(cloud, 3, age_s=0.0)
    cloud.run(30)
    assert cloud.state(3) is HostState.FAILED
    assert "icmp from one-2 answers although the host was proven off" in cloud.incident(3).stopped
    assert len(cloud.ordered(MoveVm)) == moves


def test_a_word_that_comes_after_the_proof_and_is_about_the_time_before_stops_no_move(cloud):
    cloud.kill(3, "off")
    while cloud.state(3) is not HostState.FENCED:
        cloud.run(0.2)
    off_at = cloud.incident(3).proof.at
    cloud.run(0.2)
    tell(cloud, 3, age_s=cloud.now - off_at)
    cloud.run(30)
    assert cloud.state(3) is HostState.RECOVERED
    assert not cloud.incident(3).barred


def test_that_another_one_hears_the_kernel_of_a_hung_host_is_no_news_and_its_sshd_is(make_cloud):
    def hung(channel: str) -> Cloud:
        policies = {**SETTINGS.policies, "hung": Policy.FENCE}
        cloud = make_cloud(settings=replace(SETTINGS, policies=policies, hung_after_s=20.0))
        cloud.elsewhere["oned"] = {3: Signal.SILENT}
        cloud.run(6)
        cloud.frozen.add(3)
        run(cloud, 60, 3, channel=channel)
        return cloud

    assert fenced(hung("icmp"))
    assert not fenced(hung("ssh"))
    assert not fenced(hung("a channel that we do not have"))


def test_the_kernel_of_a_host_that_hung_is_news_when_we_do_not_hear_it_any_more(make_cloud):
    policies = {**SETTINGS.policies, "hung": Policy.FENCE}
    cloud = make_cloud(settings=replace(SETTINGS, policies=policies, hung_after_s=20.0))
    cloud.elsewhere["oned"] = {3: Signal.SILENT}
    cloud.deaf.add(Fence)
    cloud.run(6)
    cloud.frozen.add(3)
    run(cloud, 40, 3)
    (order,) = cloud.ordered(Fence)
    keys = {"host": 3, "incident": order.incident, "attempt": order.attempt}
    cloud.kill(3, "mute")  # for us: what the other one hears may be all that there is to hear
    run(cloud, 12, 3)
    cloud.feed(FenceReported(**keys, result=FenceResult.REFUSED, off_read_at=None, detail="busy"))
    run(cloud, 70, 3)
    assert cloud.incident(3).verdict == "hung"
    assert len(fenced(cloud)) == 1
    assert cloud.incident(3).hold.startswith("life: one-2 sees it alive")


# --- it does nothing else ---------------------------------------------------------------------------------------------


def without_sight(cloud: Cloud) -> str:
    state = cloud.controller.state
    views = {host: replace(view, seen_by={}) for host, view in state.views.items()}
    return repr(replace(state, views=views))


@pytest.mark.parametrize("power", ["", "off", "on"])
@pytest.mark.parametrize("after_s", [0.2, 1.2, 5.0, 12.0, 30.0])
def test_a_word_changes_nothing_but_what_is_known_of_that_word(make_cloud, power, after_s):
    cloud = make_cloud()
    cloud.run(6)
    if power:
        cloud.kill(3, power)
    cloud.run(after_s)
    before, effects = without_sight(cloud), len(cloud.effects)
    tell(cloud, *range(8))
    assert without_sight(cloud) == before
    assert len(cloud.effects) == effects


def test_only_what_looks_for_a_veto_reads_it():
    """Of the core: a module that is added here gets a test above, or below."""
    readers = {
        path.name
        for path in (ROOT / "ha_controller/core").glob("*.py")
        if re.search(r"seen_by|\b(life|sight)\.[a-z_]+\(", path.read_text())
    }
    assert readers == {
        "sight.py", "life.py", "state.py", "controller.py",  # the words, the questions, and the evidence for people
        "handover.py",  # keeps them when the lead is taken over: test_takeover_from_the_record.py
        "guard.py", "suspicion.py",  # the guard `life`, and whether its veto is news
        "fencing.py", "lever.py",  # life after OFF, and after the proof
        "situation.py",  # whether a RECOVERED host still counts as off
        "commands.py",  # a person orders a power-off, confirms OFF, or releases
    }  # fmt: skip


def test_it_makes_no_isolated_host_that_policy_powers_off(make_cloud):
    settings = replace(SETTINGS, policies={**SETTINGS.policies, "isolated": Policy.FENCE})
    cloud = make_cloud(settings=settings)
    cloud.run(6)
    cloud.kill(3, "on")
    run(cloud, 60, 3)
    assert not fenced(cloud)


def test_a_host_that_is_isolated_by_our_own_evidence_is_not_powered_off_either():
    settings = replace(SETTINGS, policies={**SETTINGS.policies, "isolated": Policy.FENCE})
    cloud = seen(settings)
    cloud.kill(3, "on")
    run(cloud, 60, 3)
    assert not fenced(cloud)


def test_it_fills_nothing_and_empties_nothing_of_a_take_over(make_cloud):
    def after(*alive: int) -> Cloud:
        cloud = make_cloud()
        cloud.feed(LeadChanged(term=None, leader="one"))
        cloud.run(10)
        cloud.kill(3, "off")
        cloud.run(5)
        cloud.feed(LeadChanged(term=2, inherited="one led in term 1"))
        run(cloud, 20, *alive)
        cloud.inventory()
        cloud.run(20)
        return cloud

    alone, told = after(), after(3)
    assert told.incident(3).foreign == alone.incident(3).foreign != ""
    assert told.controller.state.cloud.inherited_at == alone.controller.state.cloud.inherited_at > 0
    assert not fenced(told)


def test_a_host_that_never_answered_since_its_maintenance_is_still_awaited(cloud):
    cloud.excluded[3] = "maintenance"
    cloud.inventory()
    cloud.kill(3, "off")
    cloud.run(5)
    del cloud.excluded[3]
    cloud.inventory()
    run(cloud, 10, 3)
    assert cloud.controller.state.view(3).awaits_life
    cloud.run(60)
    assert not fenced(cloud)
    assert "has not answered since its maintenance ended" in cloud.incident(3).hold


def test_hosts_that_fell_together_are_one_cause_although_one_was_seen_for_long(make_cloud):
    cloud = make_cloud()
    cloud.places = {host: (("HA_RACK", "r1" if host < 4 else "r2"),) for host in range(8)}
    cloud.inventory()
    cloud.run(6)
    for host in (1, 2):
        cloud.kill(host, "on")
    run(cloud, WITHIN_S + 20, 1)
    cloud.run(30)
    assert not fenced(cloud)
    assert all("shared cause" in cloud.incident(host).hold for host in (1, 2))


def test_it_readmits_nobody(make_cloud):
    cloud = make_cloud(settings=replace(SETTINGS, rejoins_itself=True))
    cloud.run(6)
    cloud.kill(3, "off")
    cloud.run(30)
    assert cloud.state(3) is HostState.RECOVERED
    cloud.effects.clear()
    run(cloud, 60, 3)
    assert cloud.state(3) is HostState.RECOVERED
    assert cloud.incident(3).open
    assert cloud.controller.state.view(3).answers_since is None


def test_it_says_nothing_of_a_device(cloud):
    cloud.kill(3, "off")
    cloud.run(0.4)
    trusted = dict(cloud.controller.state.trusts)
    cloud.controller.state.view(3).off_while_alive["bmc"] = cloud.now
    tell(cloud, 3, age_s=-0.1)
    run(cloud, 3, 3)
    assert cloud.controller.state.trusts == trusted
    assert not cloud.controller.state.view(3).devices["bmc"].contradicted


def test_it_makes_no_host_a_destination(make_cloud):
    cloud = make_cloud(hosts=2)
    cloud.run(6)
    cloud.dead = {0: "off", 1: "mute"}
    cloud.operator(Verb.PAUSE)
    run(cloud, 30, 1)
    assert life.shown(cloud.controller.state, 1, cloud.now)
    assert not cloud.ordered(MoveVm)


# --- and never makes anything come sooner -----------------------------------------------------------------------------

HAPPENS = st.lists(
    st.tuples(
        st.sampled_from(["die off", "die on", "die mute", "come back", "freeze", "say alive", "say alive ssh", "wait"]),
        st.sampled_from([0.2, 1.0, 4.0, 11.0]),
        st.floats(min_value=-1.0, max_value=40.0),
    ),
    min_size=1,
    max_size=12,
)


def first_order(story: list[tuple[str, float, float]], *, told: bool, isolated: Policy) -> float:
    """When the first power-off of host 3 leaves in a story; never: infinity."""
    policies = {**SETTINGS.policies, "isolated": isolated, "hung": Policy.FENCE}
    cloud = Cloud(settings=replace(SETTINGS, policies=policies, hung_after_s=15.0), hosts=5, vms_per_host=1)
    cloud.elsewhere["oned"] = {3: Signal.SILENT}
    cloud.run(6)
    for what, lasts_s, age_s in story:
        match what.split():
            case ["die", power]:
                cloud.dead[3] = power
            case ["come", "back"]:
                cloud.dead.pop(3, None)
                cloud.frozen.discard(3)
            case ["freeze"]:
                cloud.frozen.add(3)
            case ["say", "alive", *channel] if told:
                tell(cloud, 3, age_s=age_s, channel="".join(channel) or "icmp")
        cloud.run(lasts_s)
        if cloud.ordered(Fence):
            break
    return cloud.first(Fence) if cloud.ordered(Fence) else float("inf")


@budget(max_examples=40, deadline=None)
@given(HAPPENS, st.sampled_from([Policy.FENCE, Policy.TELL]))
def test_no_word_makes_a_power_off_come_sooner(story, isolated):
    assert first_order(story, told=True, isolated=isolated) >= first_order(story, told=False, isolated=isolated)
