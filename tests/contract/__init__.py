"""One suite for both catalogs: what the bridge and the front may rely on, whichever is behind them."""
