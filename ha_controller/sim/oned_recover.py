"""What one.vm.recover makes of each state in the embedded oned, and how its drivers' results change a state.

As plain data, and independent of the controller's own table: one can be held against the other. Rows that recordings
show are held true to them by tests; the others follow oned's source (src/lcm of release 7).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from types import MappingProxyType

from ha_controller.sim import oned_model as one

FAILURE, SUCCESS, RETRY, DELETE, RECREATE, DELETE_DB = range(6)
State = tuple[int, int]


class Then(Enum):
    """What goes on after the state was changed."""

    NOTHING = auto()
    BOOT = auto()  #: a start on the VM's host
    FILES = auto()  #: disks are moved to the VM's host, or made there
    FILES_READY = auto()  #: as if that had just ended
    EPILOG = auto()  #: disks are moved away
    BACK = auto()  #: to the host of the record before, and go on there as if the disks had just arrived


@dataclass(frozen=True, kw_only=True)
class Change:
    """The state that is taken at once, and what follows."""

    state: State
    then: Then = Then.NOTHING
    back: bool = False  #: a new history record names the host of the one before


def _active(lcm_state: int) -> State:
    return (one.ACTIVE, lcm_state)


RUNNING, POWEROFF, SUSPENDED = _active(one.RUNNING), (one.POWEROFF, 0), (one.SUSPENDED, 0)
#: state while a VM is started -> when that fails
BOOT_FAILS: Mapping[int, State] = MappingProxyType(
    {2: _active(36), 35: _active(37), 19: _active(16), 20: POWEROFF, 21: SUSPENDED, 22: _active(48), 32: _active(47)}
)
#: state while disks are moved or made -> what follows, and when that fails
FILES_END: Mapping[int, State] = MappingProxyType(
    {1: _active(2), 8: _active(35), 9: _active(22), 31: _active(32), 60: _active(2), 43: POWEROFF, 45: SUSPENDED}
)
FILES_FAIL: Mapping[int, int] = MappingProxyType({1: 39, 8: 38, 9: 49, 31: 50, 60: 61, 43: 44, 45: 46})
EPILOG_END: Mapping[int, State] = MappingProxyType({11: (one.DONE, 0), 10: (4, 0), 30: (one.UNDEPLOYED, 0)})
EPILOG_FAIL: Mapping[int, int] = MappingProxyType({11: 40, 10: 41, 30: 42})
#: what was done to a VM, and the state that it has when it is over, well or not
BUSY: Mapping[int, State] = MappingProxyType(
    {
        **dict.fromkeys((17, 24, 25, 26, 57, 59, 62, 66, 69), RUNNING),
        **dict.fromkeys((27, 33, 34, 51, 53, 63, 65, 70), POWEROFF),
        **dict.fromkeys((28, 54, 56), SUSPENDED),
        **dict.fromkeys((64, 67), (one.UNDEPLOYED, 0)),
        68: (4, 0),
        15: (one.PENDING, 0),
        23: (one.DONE, 0),
        16: RUNNING,
    }
)
_FILES_OF = {failed: lcm for lcm, failed in FILES_FAIL.items()}
_EPILOG_OF = {failed: lcm for lcm, failed in EPILOG_FAIL.items()}
_BOOT_OF = {36: 2, 37: 35, 47: 32, 48: 22}


def change(lcm_state: int, operation: int) -> Change | None:
    """What a recover (failure, success, retry) does to an ACTIVE VM; None: accepted, and nothing happens."""
    match operation:
        case 0:
            return _failed(lcm_state)
        case 1:
            return _succeeded(lcm_state)
        case 2:
            return _retried(lcm_state)
        case _:
            return None


def _failed(lcm: int) -> Change | None:
    if lcm in BUSY:
        return Change(state=BUSY[lcm])
    if lcm in (one.MIGRATE, one.SAVE_MIGRATE):
        return Change(state=RUNNING, back=True)
    if lcm in (5, 6, 12, 18, 29):
        return Change(state=RUNNING)
    if lcm in BOOT_FAILS:
        return Change(state=BOOT_FAILS[lcm])
    if lcm in FILES_FAIL:
        return Change(state=_active(FILES_FAIL[lcm]))
    if lcm in EPILOG_FAIL:
        return Change(state=_active(EPILOG_FAIL[lcm]))
    if lcm in (38, 44, 46, 61):
        return Change(state=_active(_FILES_OF[lcm]), then=Then.BACK, back=True)
    return None


def _succeeded(lcm: int) -> Change | None:
    files, epilog = _FILES_OF.get(lcm, lcm), _EPILOG_OF.get(lcm, lcm)
    if lcm in BUSY:
        return Change(state=BUSY[lcm])
    if lcm == one.MIGRATE or lcm in BOOT_FAILS or lcm in _BOOT_OF:
        return Change(state=RUNNING)
    if files in FILES_END:
        return Change(state=_active(files), then=Then.FILES_READY)
    if epilog in EPILOG_END:
        return Change(state=EPILOG_END[epilog])
    ends = {5: Change(state=_active(10), then=Then.EPILOG), 6: Change(state=SUSPENDED),
            7: Change(state=_active(8), then=Then.FILES), 12: Change(state=_active(11), then=Then.EPILOG),
            18: Change(state=POWEROFF), 29: Change(state=_active(30), then=Then.EPILOG)}  # fmt: skip
    return ends.get(lcm)


def _retried(lcm: int) -> Change | None:
    if lcm in _BOOT_OF or lcm in BOOT_FAILS:
        return Change(state=_active(_BOOT_OF.get(lcm, lcm)), then=Then.BOOT)
    if lcm in _FILES_OF or lcm in FILES_FAIL:
        return Change(state=_active(_FILES_OF.get(lcm, lcm)), then=Then.FILES)
    if lcm in _EPILOG_OF or lcm in EPILOG_FAIL:
        return Change(state=_active(_EPILOG_OF.get(lcm, lcm)), then=Then.EPILOG)
    return None
