"""Measures the controller beside what people would use instead, in one run: `python -m bench NAME...`.

Peer and ours take turns, in reversed order every second round; CPU is what the kernel accounts; a round counts only if
its results are right; a figure is the median of the ratios of the rounds. Peers are real programs; one that is missing
is named, and never replaced by a number from somewhere else.
"""
