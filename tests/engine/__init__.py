"""The engine room: parsing what Docker says, without Docker."""
