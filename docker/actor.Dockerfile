# The decision actor, and every other command that needs no task: submit, status, show, best ...
#   docker build -f docker/actor.Dockerfile -t romul-actor .
# With the dashboard: --build-arg EXTRAS=prometheus,dashboard (a larger image).
# Any Debian or Ubuntu with Python 3.11 or later will do as BASE. Debian's own Python is smaller than an
# image of Python, and gets its security updates with the rest.
ARG BASE=docker.io/library/debian:bookworm-20260824-slim@sha256:88200866dfff7ea7f5cbcb6ec7c8a701889efe6fe859fe64d6990e4b07ea4171
FROM ${BASE} AS build
ARG EXTRAS=prometheus
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates python3-venv
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY romul romul
COPY romul_actors romul_actors
COPY workers workers
COPY sim sim
# Nothing writes into the image later: compiled files would only make it larger, as would pip, the
# libraries' own tests, and what numpy brings for building on it.
RUN python3 -m venv /opt/romul \
  && /opt/romul/bin/pip install --no-cache-dir --no-compile ".[${EXTRAS}]" \
  && /opt/romul/bin/pip uninstall --yes setuptools pip \
  && find /opt/romul -type d \( -name tests -o -name __pycache__ -o -path '*/numpy/f2py' \
    -o -path '*/numpy/distutils' -o -path '*/numpy/_core/include' \) -prune -exec rm -rf {} + \
  && find /opt/romul -name '*.a' -delete

FROM ${BASE}
RUN apt-get update \
  && apt-get install -y --no-install-recommends ca-certificates python3 tini \
  && rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin /var/log/apt /var/log/dpkg.log
COPY --from=build /opt/romul /opt/romul
# Volumes are mounted there; they take over the owner.
RUN useradd --uid 10001 --no-create-home romul \
  && install -d -o 10001 /acl /broker /secrets /secrets/worker /secrets/actor /secrets/reader /secrets/operator
USER 10001
# The user has no folder of its own, and the root file system may be read-only: caches go where a tmpfs is.
ENV PATH=/opt/romul/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HOME=/tmp
# SIGTERM reaches the actor, which commits the batch in hand and ends. Without tini it would be PID 1, to which the kernel
# gives no signal that has no handler yet.
ENTRYPOINT ["/usr/bin/tini", "--", "romul"]
CMD ["actor"]
