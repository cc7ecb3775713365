"""Touches the world: one module for each source of facts or kind of effect. Siblings do not import each other."""
