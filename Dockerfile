# syntax=docker/dockerfile:1

# docker buildx build --platform linux/amd64,linux/arm64 -t ghcr.io/weightlift/weightlift:0.1.0 .
#
# Each architecture is built on itself (native node or emulation), so that the check at the end can
# run the binary.

FROM rust:1.95-bookworm AS build
SHELL ["/bin/bash", "-euo", "pipefail", "-c"]
WORKDIR /src

# .dockerignore lets only what the build needs through, so no other change spoils this layer.
COPY . .

# The registry and the compiled dependencies stay in cache mounts between builds. The target cache
# is kept per architecture: with a shared one, two platforms would build over each other.
ARG TARGETARCH
RUN --mount=type=cache,target=/usr/local/cargo/registry,sharing=locked \
    --mount=type=cache,target=/src/target,id=weightlift-target-${TARGETARCH},sharing=locked \
    case "${TARGETARCH:-$(dpkg --print-architecture)}" in \
      amd64) triple=x86_64-unknown-linux-gnu ;; \
      arm64) triple=aarch64-unknown-linux-gnu ;; \
      *) echo "no build for architecture ${TARGETARCH}" >&2; exit 1 ;; \
    esac; \
    cargo build --release --locked --bin weightlift --target "$triple"; \
    install -D "target/$triple/release/weightlift" /out/weightlift

# The final image has no dynamic loader: a binary that needs one would fail with the puzzling
# "no such file or directory", and only in the cluster.
RUN linkage="$(ldd /out/weightlift 2>&1 || true)"; \
    case "$linkage" in \
      *"statically linked"* | *"not a dynamic executable"*) ;; \
      *) echo "weightlift is not static:" "$linkage" >&2; exit 1 ;; \
    esac; \
    /out/weightlift --version

FROM scratch
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="weightlift" \
      org.opencontainers.image.description="Fetches model weights onto Kubernetes volumes: once, verified, resumable" \
      org.opencontainers.image.source="https://github.com/weightlift/weightlift" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build /out/weightlift /weightlift
# By number: the image has no /etc/passwd, and runAsNonRoot cannot judge a name.
USER 65532:65532
ENTRYPOINT ["/weightlift"]
