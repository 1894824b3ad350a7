"""What is in packaging/: the systemd unit."""
