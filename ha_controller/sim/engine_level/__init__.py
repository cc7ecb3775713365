"""The simulator's second level: the whole controller, with its adapters, on an event loop in pretended time."""
