"""The stories an operator can read: a folder each, sorted by theme. How one is written: docs/scenarios.md."""
