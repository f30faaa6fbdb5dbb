"""`python -m migrations`: the Procfile's `release`."""

import sys

from migrations import head, release
from tundish.settings import SettingError, Settings

try:
    database_url = Settings.from_environment().database_url
except SettingError as error:
    sys.exit(f"migrations: {error}")
if not database_url:
    sys.exit("migrations: set TUNDISH_DATABASE_URL, for instance postgresql://user:password@127.0.0.1/tundish")
release(database_url)
print(f"the database is at revision {head()}")
