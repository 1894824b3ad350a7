"""What people type beside `registrator agent`: questions to a running agent.

client   asks an agent's HTTP API
show     what it says, as tables: lookup, services, explain, watch
doctor   looks at this machine, the engine, the agent and Consul, and says what is wrong
"""
