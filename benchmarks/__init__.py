"""Benchmarks: one file per claim; nothing of the library imports them."""
