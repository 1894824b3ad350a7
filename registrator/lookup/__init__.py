"""The front: names into answers, over DNS and HTTP.

A DNS query passes through these, each of which can be read alone:

    records    the words of DNS: types, response codes, records (pure)
    wire       octets -> Query, and Answer -> octets
    names      the name asked -> what is meant (pure)
    reach      an instance and who asks -> the address to give (pure)
    ask        what an answer is made of: what is known, the zone's rules (pure)
    answers    what is meant + the catalog's snapshot -> records (pure)
    maker      the above in a row, for one kind of asker
    rendered   the reply as octets, in several orders; basis: what it stands on (pure)
    replies    the cache of those
    resolver   one packet in, one reply out: kept, or made, or loaded and made
    dns        sockets: binds them and owns the UDP and TCP servers (udp, tcp)
    linklocal  one address for every container of the node

HTTP is `http` (what every request passes) over `http_consul`, `http_lookup`,
`http_events` and `http_page` (the routes), `http_reads` (waiting), `http_reply`
and `http_server` (sockets); what is shown is pure: `consul_api`,
`consul_filter`, `lookup_api`, `explain`. `openapi` describes it, `metrics`
shows what the whole program counted.
"""
