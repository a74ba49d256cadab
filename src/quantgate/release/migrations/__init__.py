"""The tables of the registry through time, by Alembic: one file in versions/ for each step, never changed again."""
