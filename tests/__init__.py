"""Tests; a package so that they can share `cases.py`, `oracles.py` and `conftest.py`."""
