"""The run config and its TOML file."""
