"""The first run config of a catalog: its columns are guessed from the files."""
