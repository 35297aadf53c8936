"""Floors, Vectorkeep and its peers on the same work, into one table: ``python -m benchmarks.run``."""
