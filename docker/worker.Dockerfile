# A worker with torch. For a GPU, give a CUDA base that has Python 3.11 or later:
#   docker build -f docker/worker.Dockerfile --build-arg BASE=... -t romul-worker .
# Your own tasks: FROM romul-worker, COPY your modules, and set ROMUL_PATH and ROMUL_ALLOW.
ARG BASE=python:3.11-slim-bookworm
FROM ${BASE} AS build
# torch as pip resolves it; name a version to pin one.
ARG TORCH=torch
WORKDIR /src
RUN python3 -m venv /opt/romul && /opt/romul/bin/pip install --no-cache-dir "${TORCH}"
COPY pyproject.toml README.md LICENSE ./
COPY romul_actors romul_actors
COPY workers workers
COPY sim sim
RUN /opt/romul/bin/pip install --no-cache-dir ".[torch,prometheus]"

FROM ${BASE}
COPY --from=build /opt/romul /opt/romul
# The folder for checkpoints must be the worker's own before a volume is mounted there.
RUN useradd --uid 10001 --no-create-home romul && install -d -o 10001 /checkpoints
USER 10001
ENV PATH=/opt/romul/bin:$PATH PYTHONUNBUFFERED=1
HEALTHCHECK --interval=30s --timeout=10s CMD ["romul", "status", "--json"]
# No shell in between: SIGTERM reaches the worker, which ends or gives back its trial within the
# grace period. stop_grace_period must be longer than ROMUL_GRACE_S.
ENTRYPOINT ["romul"]
CMD ["worker"]
