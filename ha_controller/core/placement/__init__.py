"""Where the VMs of dead hosts go.

`plan` finds places for all of them at once; `Checker` looks at one VM and one host again right before an order.
OpenNebula checks CPU, memory and cluster of a migrate and nothing else (seen on 7.4), so every other rule is ours.
"""

from ha_controller.core.placement.planner import Checker, plan
from ha_controller.core.placement.values import Candidate, Placement, Plan, Problem, Rule, Task, Underway, in_words

__all__ = ["Candidate", "Checker", "Placement", "Plan", "Problem", "Rule", "Task", "Underway", "in_words", "plan"]
