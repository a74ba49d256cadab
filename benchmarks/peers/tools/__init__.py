"""One file per tool, run in the tool's own environment: it takes the jobs of ``contract``, a folder for each."""
