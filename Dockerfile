# A static server in an image of nothing else.
#
#   docker build -t pushwheel .
#   docker run -p 8080:8080 -e PUSHWHEEL_PUBLISH_KEY -e PUSHWHEEL_ADMIN_KEY pushwheel
#
# The exact version is pinned, and Cargo.lock pins every crate by its checksum. A tag
# can be moved: to pin the image by its bytes, look its digest up where you trust the
# registry, and build with --build-arg RUST_IMAGE=rust@sha256:...
ARG RUST_IMAGE=rust:1.95.0-alpine

# Alpine's compiler links against musl, and statically unless told otherwise.
FROM ${RUST_IMAGE} AS build
RUN apk add --no-cache gcc musl-dev
WORKDIR /pushwheel
COPY Cargo.toml Cargo.lock ./
COPY src src
# Cargo wants to find what its manifest names, though nothing of it is built.
COPY benches benches
COPY tests tests
RUN cargo build --release --locked --bin pushwheel \
    && mkdir -p /root-of-image/state \
    && cp target/release/pushwheel /root-of-image/

FROM scratch
COPY --from=build /root-of-image/pushwheel /pushwheel
# Whoever runs it: nobody's number, which needs no file of users.
COPY --from=build --chown=65534:65534 /root-of-image/state /state
USER 65534:65534
# A container is reached from outside of itself; without keys the server does
# not start there.
ENV PUSHWHEEL_LISTEN=0.0.0.0:8080
EXPOSE 8080
STOPSIGNAL SIGTERM
ENTRYPOINT ["/pushwheel"]
CMD ["serve"]
