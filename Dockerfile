# Longhand's server on the CPU. Weights are mounted, or copied, into MODEL_PATH:
#   docker build -t longhand .
#   docker run --rm -p 127.0.0.1:8000:8000 -v "$PWD/weights:/app/models:ro" longhand
FROM debian:bookworm-slim AS build
WORKDIR /src
COPY scripts/install_packages.sh scripts/
RUN scripts/install_packages.sh
COPY . .
RUN make -j"$(nproc)" build/longhand && strip build/longhand

FROM debian:bookworm-slim
RUN apt-get update \
 && apt-get install -y --no-install-recommends libcpp-httplib0.11 libicu72 libsentencepiece0 libyaml-cpp0.7 curl \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --system --no-create-home longhand
COPY --from=build /src/build/longhand /app/longhand
COPY --from=build /src/weights/tiny.safetensors /app/models/tiny.safetensors
ENV MODEL_PATH=/app/models
USER longhand
EXPOSE 8000
HEALTHCHECK --interval=30s --start-period=60s CMD curl -fsS http://127.0.0.1:8000/health || exit 1
# exec: signals reach the server, which then lets the answers under way come to their end.
CMD ["/bin/sh", "-c", "exec /app/longhand serve --models \"$MODEL_PATH\" --host 0.0.0.0 --port 8000"]
