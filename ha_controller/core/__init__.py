"""Decides. No I/O, no clock, no async, no randomness: the same events at the same times give the same orders."""
