"""Hostile input at every door where bytes of others are read. See docs/threat-model.md."""
