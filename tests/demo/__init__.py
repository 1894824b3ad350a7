"""The demo as a test: `make demo` and `make demo-down` on the real engine."""
