"""Faults put into `core` by hand, and the tests that must fail on each."""
