"""The incident protocol as a small model, of which every state is looked at: docs/protocol.md."""
