"""Six recommenders with one interface, one file each."""
