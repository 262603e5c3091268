"""Tests of the structure report."""
