"""What people type beside `registrator agent`: questions to a running agent.

client    asks an agent's HTTP API          dns      asks its DNS
show      lookup, explain and services      watch    the overview, live
overview  all services at a glance          tables   columns of text
options   what several commands take        doctor   looks at all that an agent needs:
finding   one thing that it looked at       examine  by asking      machine  on this machine
swarm     of a Swarm's services
"""
