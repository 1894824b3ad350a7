"""A real Swarm of three nodes (scripts/lab), through all that operators do to one."""
