"""What a sweep over synthesis settings varies, and what it is judged by; `distributed.sweep` runs it."""
