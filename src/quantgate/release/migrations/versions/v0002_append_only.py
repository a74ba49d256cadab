"""The database itself keeps what was registered: rows are only added, and a pointer only moves up by one."""

from __future__ import annotations

from alembic import op

revision = "0002"
down_revision = "0001"

KEPT = ("variants", "evidence", "decisions", "verdicts", "moves")
RULE = "rows of the registry are only added"
UP = "a pointer moves up by one"


def upgrade() -> None:
    if op.get_context().dialect.name == "sqlite":
        _sqlite()
    else:
        _postgresql()


def _sqlite() -> None:
    for table in KEPT:
        for event in ("UPDATE", "DELETE"):
            _refuse(f"{table}_no_{event.lower()}", f"{event} ON {table}", RULE)
    _refuse("pointers_no_delete", "DELETE ON pointers", RULE)
    up = "UPDATE ON pointers WHEN NEW.revision <> OLD.revision + 1 OR NEW.target <> OLD.target"
    _refuse("pointers_up", up, UP)


def _refuse(name: str, event: str, why: str) -> None:
    op.execute(f"CREATE TRIGGER {name} BEFORE {event} BEGIN SELECT RAISE(ABORT, '{why}'); END")


def _postgresql() -> None:
    _function("quantgate_rows_are_kept", f"RAISE EXCEPTION '{RULE}';")
    step = "IF NEW.revision <> OLD.revision + 1 OR NEW.target <> OLD.target THEN"
    _function("quantgate_pointer_up", f"{step} RAISE EXCEPTION '{UP}'; END IF; RETURN NEW;")
    for table in (*KEPT, "pointers"):
        events = "DELETE" if table == "pointers" else "UPDATE OR DELETE"
        _trigger(f"{table}_kept", f"{events} ON {table} FOR EACH ROW", "quantgate_rows_are_kept")
        _trigger(f"{table}_not_emptied", f"TRUNCATE ON {table} FOR EACH STATEMENT", "quantgate_rows_are_kept")
    _trigger("pointers_up", "UPDATE ON pointers FOR EACH ROW", "quantgate_pointer_up")


def _function(name: str, body: str) -> None:
    op.execute(f"CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body} END $$")


def _trigger(name: str, event: str, function: str) -> None:
    op.execute(f"CREATE TRIGGER {name} BEFORE {event} EXECUTE FUNCTION {function}()")
