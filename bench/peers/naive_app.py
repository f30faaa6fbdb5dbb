"""What a team writes in its first week: FastAPI, one INSERT a request, and Celery's `send_task` in a thread. Runs
in its own environment, on uvicorn with uvloop and httptools."""

import asyncio
import hmac
import json
import os
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Annotated, Any

import asyncpg
from celery import Celery
from fastapi import Depends, FastAPI, HTTPException
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel, ConfigDict

KEY = os.environ.get("BENCH_KEY", "")
TABLE = """
    CREATE TABLE IF NOT EXISTS jobs (
        id uuid PRIMARY KEY, model text NOT NULL, input jsonb NOT NULL, status text NOT NULL DEFAULT 'queued',
        output jsonb, created_at timestamptz NOT NULL DEFAULT now(), finished_at timestamptz
    )
"""

celery = Celery("naive", broker=f"redis+socket://{os.environ.get('BENCH_SOCKET', '')}")
bearer = HTTPBearer()
pool: asyncpg.Pool


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    global pool
    pool = await asyncpg.create_pool(os.environ["BENCH_DATABASE"], min_size=16, max_size=16)
    await pool.execute(TABLE)
    yield
    await pool.close()


app = FastAPI(lifespan=lifespan)


class Input(BaseModel):
    model_config = ConfigDict(extra="forbid")
    text: str


class Submit(BaseModel):
    model_config = ConfigDict(extra="forbid")
    model: str
    input: Input


class Job(BaseModel):
    id: uuid.UUID
    model: str
    status: str
    output: Any = None
    created_at: datetime | None = None
    finished_at: datetime | None = None


async def key(given: Annotated[HTTPAuthorizationCredentials, Depends(bearer)]) -> None:
    if not hmac.compare_digest(given.credentials, KEY):
        raise HTTPException(401)


@app.post("/v1/jobs", status_code=202, dependencies=[Depends(key)])
async def submit(asked: Submit) -> Job:
    id = uuid.uuid4()
    input = asked.input.model_dump_json()
    await pool.execute("INSERT INTO jobs (id, model, input) VALUES ($1, $2, $3)", id, asked.model, input)
    await asyncio.to_thread(celery.send_task, "run", (str(id),), ignore_result=True)
    return Job(id=id, model=asked.model, status="queued")


@app.get("/v1/jobs/{id}", dependencies=[Depends(key)])
async def status(id: uuid.UUID) -> Job:
    row = await pool.fetchrow("SELECT id, model, status, output, created_at, finished_at FROM jobs WHERE id = $1", id)
    if row is None:
        raise HTTPException(404)
    return Job(**{**row, "output": row["output"] and json.loads(row["output"])})
