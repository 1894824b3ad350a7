"""Tests against the real things: a Docker engine, a Consul agent."""
