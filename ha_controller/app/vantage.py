"""What this controller sees, as it tells others, and what the others see, as people and metrics are told.

Life is told as ages on our own clock, which never jumps: the asker makes moments of its own clock from them. What we do
not see is not told: nobody counts it.
"""

from __future__ import annotations

import math
import ssl
import uuid
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from ha_controller.adapters.controllers import AGE_MAX_S, Controllers, Other, Sight
from ha_controller.core.sight import kernel_channels
from ha_controller.core.state import HostView

if TYPE_CHECKING:
    from ha_controller.app.runtime import Runtime

Json = Any
LAG_MAX_S = 0.25  #: probes that come later than this may have missed answers
ROUND_AGE_MAX_S = 5.0
RUN = uuid.uuid4().hex  #: of this process: another one has another clock


def controllers_of(runtime: Runtime) -> Controllers:
    """The other controllers, and how to ask them.

    Raises:
        OSError: a certificate cannot be used.
    """
    others = [
        Other(
            name=each.name,
            url=each.url,
            token=each.token,
            tls=ssl.create_default_context(cafile=str(each.ca_file)) if each.ca_file else None,
        )
        for each in runtime.config.controller
    ]
    ours = (RUN, runtime.directory.context.instance)
    return Controllers(others, report=runtime.post, clock=runtime.clock, ours=ours, way=runtime.outside.way_to_others)


def told(runtime: Runtime) -> Json:
    """When life was last seen of each host, in seconds before now; and whether we can tell."""
    now, state = runtime.clock(), runtime.controller.state
    kernel = kernel_channels(state.settings)
    rows = [(host, _ages(view, kernel, now)) for host, view in sorted(state.views.items()) if host in state.hosts]
    return {
        "run": RUN,
        "instance": runtime.directory.context.instance,
        "clock_s": now,
        "leads": runtime.leadership.term is not None,
        "paused": bool(state.cloud.paused_by),
        "runs_on": list(state.own_hosts or ()),
        "why_unfit": why_unfit(runtime),
        "hosts": [{"host": host, "alive_s_ago": ages} for host, ages in rows if ages],
    }


def _ages(view: HostView, kernel: Collection[str], now: float) -> dict[str, float]:
    """The newest life of channels that only the kernel answers, and that of others: the asker keeps no more.

    Of our own channels alone: what others told us is theirs to tell. An age is rounded up: too old is the safe side.
    """
    newest: dict[bool, tuple[float, str]] = {}
    for name, channel in view.views.items():
        at = channel.alive_at
        if at is not None and now - at <= AGE_MAX_S:
            of_kernel = name in kernel
            newest[of_kernel] = max(newest.get(of_kernel, (at, name)), (at, name))
    return {name: max(0.0, math.ceil((now - at) * 1000) / 1000) for at, name in newest.values()}


def why_unfit(runtime: Runtime) -> list[str]:
    """Why this controller cannot tell what is silent; empty if it can. What it sees alive is alive all the same."""
    state, engine, why = runtime.controller.state, runtime.engine, []
    if engine is None or runtime.clock() - engine.last_round_at >= ROUND_AGE_MAX_S:
        why.append("its decision loop does not turn")
    if not state.hosts:
        why.append("it has not read the hosts from OpenNebula yet")
    if state.settings.self_check_needed and state.self_check is not True:
        why.append(f"self-check: {state.self_check_detail}")
    if runtime.watching.prober.lag_s > LAG_MAX_S:
        why.append(f"its probes come up to {runtime.watching.prober.lag_s:.1f} s late")
    return why


def shown(sights: Mapping[str, Sight], now: float) -> list[Json]:
    """The other controllers, for `leader show`."""
    return [
        {
            "name": name,
            "answered_s_ago": None if sight.asked_at is None else round(now - sight.asked_at, 1),
            "leads": sight.leads and sight.is_fresh(now),
            "fit": sight.is_fit(now),
            "why_unfit": list(sight.why_unfit),
            "hosts_alive": len(sight.alive) if sight.is_fresh(now) else 0,
            "trouble": sight.trouble,
        }
        for name, sight in sorted(sights.items())
    ]


def leaders_seen(runtime: Runtime) -> int:
    """How many controllers say that they lead, this one among them."""
    now, ours = runtime.clock(), runtime.leadership.term is not None
    return ours + sum(sight.leads and sight.is_fresh(now) for sight in runtime.controllers.sights.values())
