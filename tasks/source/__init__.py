"""Reading and validating catalogs and logs."""
