# The decision actor, and every other command that needs no task: submit, status, show, best ...
#   docker build -f docker/actor.Dockerfile -t romul-actor .
FROM python:3.11-slim-bookworm AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY romul_actors romul_actors
COPY workers workers
COPY sim sim
RUN python3 -m venv /opt/romul && /opt/romul/bin/pip install --no-cache-dir .

FROM python:3.11-slim-bookworm
COPY --from=build /opt/romul /opt/romul
RUN useradd --uid 10001 --no-create-home romul
USER 10001
ENV PATH=/opt/romul/bin:$PATH PYTHONUNBUFFERED=1
HEALTHCHECK --interval=30s --timeout=10s CMD ["romul", "status", "--json"]
# No shell in between: SIGTERM reaches the actor, which commits the batch in hand and ends.
ENTRYPOINT ["romul"]
CMD ["actor"]
