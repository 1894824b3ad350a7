"""Tests of what is installed, audited and released."""
