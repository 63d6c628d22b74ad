# syntax=docker/dockerfile:1

# The image for one architecture or both, from either: the compiler runs on the machine that
# builds, and cross-compiles where the target is another. A release:
#
#   export SOURCE_DATE_EPOCH="$(git log -1 --format=%ct)"
#   docker buildx build --platform linux/amd64,linux/arm64 \
#     --build-arg SOURCE_DATE_EPOCH --build-arg REVISION="$(git rev-parse HEAD)" \
#     --build-arg RUST_IMAGE=docker.io/library/rust:1.95.0-bookworm@sha256:… \
#     --sbom=true --provenance=mode=max \
#     --output type=image,name=ghcr.io/weightlift/weightlift:0.1.0,rewrite-timestamp=true,push=true .
#
# The same commit, SOURCE_DATE_EPOCH and digest of RUST_IMAGE give the same image, byte for byte.
# With podman: `podman build --platform … --timestamp "$SOURCE_DATE_EPOCH" …`.
ARG RUST_IMAGE=docker.io/library/rust:1.95.0-bookworm

FROM --platform=$BUILDPLATFORM ${RUST_IMAGE} AS build

# The bill of materials travels inside the binary, in the ELF section `.dep-v0`: every crate and
# version that was compiled in, and no date. `cargo audit bin`, syft, trivy and grype read it, also
# from the finished image, which has no package database; `--sbom=true` makes SPDX of it.
RUN --mount=type=cache,target=/usr/local/cargo/registry,sharing=locked \
    cargo install --locked --version 0.7.7 cargo-auditable

# What links for the target. Where it is the machine itself, it is in the base image already.
#
# The flags go under the target's name: RUSTFLAGS would replace those of .cargo/config.toml, which
# link statically.
ARG TARGETARCH
RUN set -eu; \
    case "$TARGETARCH" in \
      amd64) rust=x86_64-unknown-linux-gnu; upper=X86_64_UNKNOWN_LINUX_GNU; \
             linker="x86_64-linux-gnu-gcc"; package=gcc-x86-64-linux-gnu ;; \
      arm64) rust=aarch64-unknown-linux-gnu; upper=AARCH64_UNKNOWN_LINUX_GNU; \
             linker="aarch64-linux-gnu-gcc"; package=gcc-aarch64-linux-gnu ;; \
      *) echo "no build for architecture $TARGETARCH" >&2; exit 1 ;; \
    esac; \
    if ! command -v "$linker"; then \
      apt-get update; \
      apt-get install -y --no-install-recommends \
        "$package=4:12.*" "libc6-dev-$TARGETARCH-cross=2.36-*"; \
      rm -rf /var/lib/apt/lists/*; \
      rustup target add "$rust"; \
    fi; \
    { echo "export CARGO_BUILD_TARGET=$rust"; \
      echo "export CARGO_TARGET_${upper}_LINKER=$linker"; \
      echo "export CARGO_TARGET_${upper}_RUSTFLAGS='--remap-path-prefix=/src=. --remap-path-prefix=/usr/local/cargo=/cargo'"; \
    } >/target

WORKDIR /src
# .dockerignore lets only what the build needs through, so no other change spoils this layer.
COPY . .

# What `weightlift --version` says that it is made of; there is no repository in here.
ARG REVISION=unknown

# The registry and the compiled dependencies stay in cache mounts between builds. The target cache
# is kept per architecture, so that two platforms never wait for each other's files.
RUN --mount=type=cache,target=/usr/local/cargo/registry,sharing=locked \
    --mount=type=cache,target=/src/target,id=weightlift-target-${TARGETARCH},sharing=locked \
    set -eu; \
    . /target; \
    WEIGHTLIFT_COMMIT="$REVISION" cargo auditable build --release --locked --bin weightlift; \
    install -D "target/$CARGO_BUILD_TARGET/release/weightlift" /out/weightlift

# The final image has no dynamic loader: a binary that needs one would fail with the puzzling
# "no such file or directory", and only in the cluster. So would one for another machine.
ARG SOURCE_DATE_EPOCH=0
RUN set -eu; \
    seen="$(readelf --wide --file-header --program-headers --dynamic --sections /out/weightlift)"; \
    refuse() { echo "/out/weightlift $1" >&2; exit 1; }; \
    case "$TARGETARCH:$seen" in \
      amd64:*"Machine:"*"X86-64"* | arm64:*"Machine:"*"AArch64"*) ;; \
      *) refuse "is not for $TARGETARCH" ;; \
    esac; \
    case "$seen" in *INTERP* | *"(NEEDED)"*) refuse "is not static" ;; esac; \
    case "$seen" in *.dep-v0*) ;; *) refuse "has no bill of materials" ;; esac; \
    case "$(uname -m):$TARGETARCH" in \
      x86_64:amd64 | aarch64:arm64) /out/weightlift --version ;; \
    esac; \
    touch --date="@$SOURCE_DATE_EPOCH" /out/weightlift

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
# `command: ["weightlift", …]` is what people write, and what KServe and others put together.
ENV PATH=/
ENTRYPOINT ["/weightlift"]
