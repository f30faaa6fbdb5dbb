"""`python -m migrations`: the Procfile's `release`."""

import sys

from sqlalchemy.exc import OperationalError

from migrations import head, release
from tundish.settings import SettingError, Settings

try:
    database_url = Settings.from_environment().database_url
except SettingError as error:
    sys.exit(f"migrations: {error}")
if not database_url:
    sys.exit("migrations: set TUNDISH_DATABASE_URL, for instance postgresql://user:password@127.0.0.1/tundish")
try:
    release(database_url)
except OperationalError as error:
    sys.exit(f"migrations: {str(error.orig).strip()}; see TUNDISH_DATABASE_URL")
print(f"the database is at revision {head()}")
