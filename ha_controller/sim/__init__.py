"""Pretends: the embedded cloud, for the demo and the tests. Knows only the plugin interface."""
