"""The page: search, map and runs in a browser, from this machine alone."""
