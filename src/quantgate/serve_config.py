"""serve.yaml: every key, its type, its default and what it means."""
