# The decision actor, and every other command that needs no task: submit, status, show, best ...
#   docker build -f docker/actor.Dockerfile -t romul-actor .
# With the dashboard: --build-arg EXTRAS=prometheus,dashboard (a larger image).
FROM python:3.11-slim-bookworm AS build
ARG EXTRAS=prometheus
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
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

FROM python:3.11-slim-bookworm
COPY --from=build /opt/romul /opt/romul
# Volumes are mounted there; they take over the owner.
RUN useradd --uid 10001 --no-create-home romul \
  && install -d -o 10001 /acl /broker /secrets /secrets/worker /secrets/actor /secrets/reader /secrets/operator
USER 10001
ENV PATH=/opt/romul/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
HEALTHCHECK --interval=30s --timeout=10s CMD ["romul", "status", "--json"]
# No shell in between: SIGTERM reaches the actor, which commits the batch in hand and ends.
ENTRYPOINT ["romul"]
CMD ["actor"]
