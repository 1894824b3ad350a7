"""Tests of the two catalogs, each on its own."""
