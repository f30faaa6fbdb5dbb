"""What `./dev` runs: the whole system on one machine, with Postgres and Valkey embedded, supervised by ourselves."""
