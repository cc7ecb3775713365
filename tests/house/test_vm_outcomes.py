"""docs/vm-outcomes.md shows the table of VM states as it is in the code. `--accept` writes it anew."""

from __future__ import annotations

from pathlib import Path

from ha_controller.core.vm_table import LCM, STATES, Ask, Recover, Row, Rule, Step

PAGE = Path(__file__).parents[2] / "docs" / "vm-outcomes.md"
BEGIN, END = "<!-- table: begin -->\n", "<!-- table: end -->\n"
HEAD = "| number | state | is brought to | what is done | never |\n|---|---|---|---|---|\n"


def told(rule: Rule | Ask, whom: str = "the other host") -> str:
    if isinstance(rule, Ask):
        off = f" Off, too: {told(rule.off)}." if rule.off is not None else ""
        return f"{whom} is asked. Runs there: {told(rule.runs)}. Not there: {told(rule.absent)}.{off}"
    where = " (only if the operator allows to make VMs anew)" if rule.recreates else ""
    match rule.step:
        case Step.RECOVER if rule.call is not None:
            times = {0: "", 1: ", once", 2: ", twice at most"}[rule.times]
            later = "later " if rule.after_driver else ""
            return f"{later}recover {rule.call.value}{times} → {rule.then}{where} [{rule.source.value}]"
        case Step.MOVE:
            return f"migrate → {rule.then} [{rule.source.value}]"
        case _:
            return f"{rule.step.value}: {rule.reason}"


def line(number: int, row: Row) -> str:
    done = told(row.here)
    if row.leaving is not None and row.leaving != row.here:
        done = f"It was coming: {done} It was leaving: {told(row.leaving)}"
    if isinstance(row.arrived, Rule) and row.arrived.step is Step.RECOVER:
        done += f". At its destination: {told(row.arrived)}"
    if row.overdue is not None:
        done += f". At its destination for half of `vm_timeout`: {told(row.overdue, 'that host')}"
    never = row.never_text or ", ".join(f"recover {Recover(call).value}" for call in row.never)
    return f"| {number} | {row.name} | {row.want.value} | {done} | {never} |\n"


def table() -> str:
    active = "".join(line(number, row) for number, row in LCM.items())
    others = "".join(line(number, row) for number, row in STATES.items())
    return f"LCM_STATE of an ACTIVE VM:\n\n{HEAD}{active}\nSTATE of a VM that is not ACTIVE:\n\n{HEAD}{others}"


def test_the_page_shows_the_table_as_it_is(accept: bool):
    before, rest = PAGE.read_text().split(BEGIN)
    shown, after = rest.split(END)
    if accept:
        PAGE.write_text(f"{before}{BEGIN}{table()}{END}{after}")
        shown = table()
    assert shown == table()


def test_every_state_is_on_the_page():
    page = PAGE.read_text()
    assert [row.name for row in (*LCM.values(), *STATES.values()) if f"| {row.name} |" not in page] == []
