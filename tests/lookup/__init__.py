"""Tests of registrator.lookup."""
