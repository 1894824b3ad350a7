"""The demo of `make demo`: sets it up, shows that it works, removes it (see __main__)."""
