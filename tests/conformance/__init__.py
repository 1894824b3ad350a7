"""Our DNS front beside a real Consul's: the same catalog, the same questions, compared answer by answer."""
