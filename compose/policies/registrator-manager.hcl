# registrator on managers: it registers services, and publishes what managers know of the Swarm's services.
service_prefix "" {
  policy = "write"
}
node_prefix "" {
  policy = "read"
}
key_prefix "registrator/swarm/" {
  policy = "write"
}
