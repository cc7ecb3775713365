"""plan: places for 2,000 VMs over 500 hosts, in clouds that are roomy, tight and too small."""

from __future__ import annotations

from bench.harness import Figure, Options, absolute, run_side

GOAL_S = 2.0


def plan(options: Options) -> list[Figure]:
    """The longest of all kinds of clouds counts; the plans are compared with a simple way that may not place more."""
    sample = run_side("bench.plan:ours", seeds=options.rounds or 3)
    note = "; ".join(f"{what} {took_s:.2f} s" for what, took_s in sample["each"].items())
    return [
        absolute(
            "plan", max(sample["each"].values()), GOAL_S, unit="s", note=f"CPU of the longest of each kind: {note}"
        )
    ]


def ours(seeds: int) -> dict[str, object]:
    """All of them once, as tests/campaigns/placement.py has them."""
    from campaigns.placement import large

    longest: dict[str, float] = {}
    for row in large(seeds):
        assert row.placed >= row.simply, row
        longest[row.what] = max(longest.get(row.what, 0.0), row.took_s)
    return {"each": longest}
