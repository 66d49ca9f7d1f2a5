"""Tests of the core: every tiny model of one table meets every contract."""
