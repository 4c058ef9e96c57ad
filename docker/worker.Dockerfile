# A worker with torch. For a GPU, give a CUDA base: any Debian or Ubuntu with Python 3.11 or later, such as
#   docker build -f docker/worker.Dockerfile --build-arg BASE=nvidia/cuda:12.8.1-base-ubuntu24.04 -t localhost/romul-worker .
# Your own tasks: FROM localhost/romul-worker, COPY your modules, and set ROMUL_PATH and ROMUL_ALLOW. What they import:
#   USER 0
#   RUN pip install --no-cache-dir transformers
#   USER 10001
# Stores other than S3 need the package that fsspec names, such as gcsfs or adlfs, in the same way.
ARG BASE=docker.io/library/debian:bookworm-20260824-slim@sha256:88200866dfff7ea7f5cbcb6ec7c8a701889efe6fe859fe64d6990e4b07ea4171
FROM ${BASE} AS build
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates python3-venv
# torch as pip resolves it; name a version to pin one.
ARG TORCH=torch
WORKDIR /src
RUN python3 -m venv /opt/romul && /opt/romul/bin/pip install --no-cache-dir "${TORCH}"
ARG EXTRAS=torch,prometheus,s3
COPY pyproject.toml README.md LICENSE ./
COPY romul romul
COPY romul_actors romul_actors
COPY workers workers
COPY sim sim
RUN /opt/romul/bin/pip install --no-cache-dir ".[${EXTRAS}]"

FROM ${BASE}
RUN apt-get update \
  && apt-get install -y --no-install-recommends ca-certificates python3 tini \
  && rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin /var/log/apt /var/log/dpkg.log
COPY --from=build /opt/romul /opt/romul
# The folder for checkpoints must be the worker's own before a volume is mounted there.
RUN useradd --uid 10001 --no-create-home romul && install -d -o 10001 /checkpoints
USER 10001
# The user has no folder of its own, and the root file system may be read-only: what tasks and libraries download
# into their caches goes where a volume or a tmpfs is.
ENV PATH=/opt/romul/bin:$PATH PYTHONUNBUFFERED=1 HOME=/tmp
# SIGTERM reaches the worker, which ends or gives back its trial within the grace period; stop_grace_period must be longer
# than ROMUL_GRACE_S. Without tini it would be PID 1: the kernel gives that no signal that has no handler yet, and what
# processes of tasks leave behind would never be reaped.
ENTRYPOINT ["/usr/bin/tini", "--", "romul"]
CMD ["worker"]
