"""All doors."""

from __future__ import annotations

from . import devices, etcd, hosts, oned, people
from .target import Target

TARGETS: dict[str, Target] = {
    target.name: target for module in (oned, devices, etcd, hosts, people) for target in module.TARGETS
}
