"""Which encoders make which streams: TOML files, and what a checkpoint records of them."""
