# The image of every refold service in docker-compose.yml: refold itself, and the examples to have something to run.
FROM python:3.13-slim AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
# src/refold holds symlinks to the folders beside it.
COPY src src
COPY engine engine
COPY log log
COPY projections projections
COPY services services
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:3.13-slim
COPY --from=build /wheels /wheels
RUN pip install --no-cache-dir "$(echo /wheels/refold-*.whl)[metrics,http,registry]"
WORKDIR /app
COPY examples examples
ENV PYTHONUNBUFFERED=1
USER nobody
ENTRYPOINT ["refold"]
