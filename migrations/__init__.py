"""The schema's history (Alembic), applied by ``clr migrate``. Its version table is ``clr_alembic_version``."""
