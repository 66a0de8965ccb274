"""Where the files of an input lie: day folders, and tables of other formats."""
