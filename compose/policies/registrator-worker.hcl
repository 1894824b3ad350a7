# registrator on workers: it registers services, and reads what managers publish.
service_prefix "" {
  policy = "write"
}
node_prefix "" {
  policy = "read"
}
key_prefix "registrator/swarm/" {
  policy = "read"
}
