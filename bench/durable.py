"""No figure counts where a commit may be lost."""

import psycopg

WANTED = ("fsync", "synchronous_commit", "full_page_writes")


def check(url: str) -> None:
    """Raises RuntimeError where Postgres may lose what it has acknowledged."""
    with psycopg.connect(url) as connection:
        for name in WANTED:
            row = connection.execute(f"SHOW {name}").fetchone()
            if row is None or row[0] != "on":
                raise RuntimeError(f"{name} is not on: the figure would not count")
