"""What a sweep over synthesis settings varies, and what it is judged by; `execution.ray.sweep` runs it."""
