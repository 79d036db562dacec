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
# A stable release's packages change for security alone, and those changes are wanted.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends libcpp-httplib0.11 libicu72 libsentencepiece0 libyaml-cpp0.7 curl \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --system --no-create-home --uid 10001 longhand
COPY --from=build /src/build/longhand /app/longhand
COPY --from=build /src/weights/tiny.safetensors /app/models/tiny.safetensors
ENV MODEL_PATH=/app/models
USER 10001
EXPOSE 8000
HEALTHCHECK --interval=30s --start-period=60s CMD ["curl", "-fsS", "http://127.0.0.1:8000/health"]
CMD ["/app/longhand", "serve", "--host", "0.0.0.0", "--port", "8000"]
