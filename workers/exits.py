"""The exit statuses of a worker: its supervisor treats some in their own way. Numbers are those of sysexits.h, with the
meaning that is nearest."""

#: A stage broke, the device's context was poisoned, Celery broke, or Postgres did not take what is served.
BROKEN = 1
#: It heard nothing while messages waited.
DEAF = 69
#: A predict hung.
HUNG = 70
#: Its device went away: a new one is of no use at once, and stays in quarantine.
LOST = 74
#: It has grown past its limits, and has drained: a new one shall start at once.
GROWN = 75
#: It was interrupted twice, as shells have it.
INTERRUPTED = 130
