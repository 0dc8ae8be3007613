"""How work is spread: in this process, or over a Ray cluster."""
