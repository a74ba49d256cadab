"""What Alembic runs for each command; ``schema.py`` hands it the connection, inside a transaction of its own."""

from __future__ import annotations

from alembic import context

from quantgate.release.tables import VERSION_TABLE, metadata


def migrate() -> None:
    options = context.config.attributes["options"]
    context.configure(target_metadata=metadata, version_table=VERSION_TABLE, **options)
    context.run_migrations()


if __name__ == "env_py":  # the name that Alembic gives to this file
    migrate()
