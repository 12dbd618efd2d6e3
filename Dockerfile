# The image of a refold worker: refold itself, and the examples to have something to run.
FROM python:3.13-slim
WORKDIR /app
COPY . /src
RUN pip install --no-cache-dir /src && cp -r /src/examples /app/examples && rm -rf /src
ENV PYTHONUNBUFFERED=1
USER nobody
ENTRYPOINT ["refold"]
