"""One file in `versions` per change of the tables, run by alembic."""
