"""The pure core against a pretended world: virtual time, one seed, faults, and checkers after every step."""
