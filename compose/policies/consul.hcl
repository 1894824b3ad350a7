# The token of the Consul servers themselves: to put their nodes, and the services of these, into the catalog.
node_prefix "" {
  policy = "write"
}
service_prefix "" {
  policy = "read"
}
