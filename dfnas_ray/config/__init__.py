"""Settings: from YAML and overrides to one validated experiment."""
