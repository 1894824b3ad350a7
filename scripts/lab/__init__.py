"""A Swarm of three machines on this one: engines, Consul servers, addresses and cables of their own.

    make lab        sets it up, deploys compose/stack.yml and leaves it running
    make lab-down   removes it

    network   the cables: a bridge, and a network namespace for each node
    node      one machine: start, kill, cut off, and a look from inside
    images    what the stack file names, made here, for no registry can be reached
    lab       the three together: a swarm with the images, and the stack on it

tests/lab does to it all that operators do.
"""
