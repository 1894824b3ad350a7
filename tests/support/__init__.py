"""What tests stand on: real engines and real Consuls."""
