"""Pure decisions: no clock, no randomness, no I/O. Whoever calls brings ``now``, ids and seeds."""
