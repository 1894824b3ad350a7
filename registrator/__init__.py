"""registrator: service discovery for containers, without touching their apps.

One asyncio agent per Docker node keeps a service catalog true to what Docker
runs, and answers lookups from that catalog over DNS and HTTP. Data flows
through four rooms, each a package:

    engine/    what Docker says: events, listing, inspect -> Container
    bridge/    Containers -> Instances, the plan (desired against actual), the loop
    catalog/   where instances live: embedded in this process, or Consul
    lookup/    names -> answers, over DNS and HTTP

`model` holds the words they share, `settings` what an operator may set,
`agent` the only wiring, `cli` the command line. docs/architecture.md tells why.
"""

__version__ = "0.1.0"
