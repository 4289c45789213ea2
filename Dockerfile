# An image that contains only a static binary.
#
#   docker build -t pushwheel .
#   docker run -p 8080:8080 -e PUSHWHEEL_PUBLISH_KEY -e PUSHWHEEL_ADMIN_KEY pushwheel
#
# The exact version is pinned, and Cargo.lock pins every crate by checksum. A tag can be
# moved: to pin the base image by content, look up its digest in a registry that you
# trust, and build with --build-arg RUST_IMAGE=rust@sha256:...
ARG RUST_IMAGE=rust:1.95.0-alpine

# Alpine's compiler links statically against musl by default.
FROM ${RUST_IMAGE} AS build
RUN apk add --no-cache gcc musl-dev
WORKDIR /pushwheel
COPY Cargo.toml Cargo.lock ./
COPY src src
COPY crates crates
# Cargo requires every path in the manifest, although none of these is built.
COPY benches benches
COPY tests tests
RUN cargo build --release --locked --bin pushwheel \
    && mkdir -p /root-of-image/state \
    && cp target/release/pushwheel /root-of-image/

FROM scratch
COPY --from=build /root-of-image/pushwheel /pushwheel
# An unprivileged user by number, so that the image needs no /etc/passwd.
COPY --from=build --chown=65534:65534 /root-of-image/state /state
USER 65534:65534
# A container is reachable from outside, so the server does not start without keys.
ENV PUSHWHEEL_LISTEN=0.0.0.0:8080
EXPOSE 8080
STOPSIGNAL SIGTERM
# Checks the server of PUSHWHEEL_LISTEN.
HEALTHCHECK --interval=10s --timeout=6s --start-period=30s CMD ["/pushwheel", "health"]
ENTRYPOINT ["/pushwheel"]
CMD ["serve"]
