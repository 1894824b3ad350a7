"""The bridge: from what Docker runs to what the catalog must hold.

    labels     the SERVICE_* grammar: environment and labels -> settings of a port
    checks     SERVICE_CHECK_* -> checks
    instances  Container -> Instances, with what was refused and why
    plan       desired against actual -> the least writes
    lanes      one worker per container, so that order per container is kept
    reconcile  the loop that ties them to an engine and a Registry

All but the last two are pure: same input, same output, nothing else read.
"""
