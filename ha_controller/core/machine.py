"""The transition table of a host's state, total over (state, trigger). Nothing about states lives outside it.

The diagram in docs/architecture.md is drawn from this table.
"""

from __future__ import annotations

from enum import StrEnum

from ha_controller.core.model import HostState


class Trigger(StrEnum):
    """What can move a host from one state to another."""

    SILENCE = "silent"
    LIFE = "answers again"
    CONDEMNED = "condemned, no veto"  #: the decision to power off is on record
    STOOD_DOWN = "answers again, no power-off was sent"
    OFF_VERIFIED = "off verified"
    PROOF_VOIDED = "life after the proof"
    VMS_SETTLED = "every VM has an outcome"
    READMITTED = "readmitted"  #: passed the rejoin gate, or an operator dismissed the incident


_S, _T = HostState, Trigger

TABLE: dict[HostState, dict[Trigger, HostState]] = {
    _S.OK: {
        _T.SILENCE: _S.SUSPECT,
        _T.LIFE: _S.OK,
        _T.CONDEMNED: _S.OK,  # never from OK: a host must have been suspect first
        _T.STOOD_DOWN: _S.OK,
        _T.OFF_VERIFIED: _S.OK,
        _T.PROOF_VOIDED: _S.OK,
        _T.VMS_SETTLED: _S.OK,
        _T.READMITTED: _S.OK,
    },
    _S.SUSPECT: {
        _T.SILENCE: _S.SUSPECT,
        _T.LIFE: _S.OK,
        _T.CONDEMNED: _S.FAILED,
        _T.STOOD_DOWN: _S.SUSPECT,
        _T.OFF_VERIFIED: _S.SUSPECT,  # an operator's word needs the record of FAILED first
        _T.PROOF_VOIDED: _S.SUSPECT,
        _T.VMS_SETTLED: _S.SUSPECT,
        _T.READMITTED: _S.OK,
    },
    _S.FAILED: {
        _T.SILENCE: _S.FAILED,
        _T.LIFE: _S.FAILED,  # a power-off may be under way: only STOOD_DOWN leads back
        _T.CONDEMNED: _S.FAILED,
        _T.STOOD_DOWN: _S.OK,
        _T.OFF_VERIFIED: _S.FENCED,
        _T.PROOF_VOIDED: _S.FAILED,
        _T.VMS_SETTLED: _S.FAILED,
        _T.READMITTED: _S.OK,
    },
    _S.FENCED: {
        _T.SILENCE: _S.FENCED,
        _T.LIFE: _S.FENCED,
        _T.CONDEMNED: _S.FENCED,
        _T.STOOD_DOWN: _S.FENCED,
        _T.OFF_VERIFIED: _S.FENCED,
        _T.PROOF_VOIDED: _S.FAILED,
        _T.VMS_SETTLED: _S.RECOVERED,
        _T.READMITTED: _S.FENCED,  # VMs still wait: not before each has an outcome
    },
    _S.RECOVERED: {
        _T.SILENCE: _S.RECOVERED,
        _T.LIFE: _S.RECOVERED,
        _T.CONDEMNED: _S.RECOVERED,
        _T.STOOD_DOWN: _S.RECOVERED,
        _T.OFF_VERIFIED: _S.RECOVERED,
        _T.PROOF_VOIDED: _S.RECOVERED,  # its VMs run elsewhere; the host stays disabled until it is readmitted
        _T.VMS_SETTLED: _S.RECOVERED,
        _T.READMITTED: _S.OK,
    },
}


def following(state: HostState, trigger: Trigger) -> HostState:
    """The state after `trigger`."""
    return TABLE[state][trigger]
