"""Members of another package for dfnas-ray."""
