# A static binary in an image that holds nothing else. README.md has the three
# ways to run it: extraction only, lazy mounts, and as a sidecar.
FROM golang:1.26 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=
RUN CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X main.release=${VERSION}" -o /objectmount ./cmd/objectmount

FROM scratch
# Certificates for TLS; everything else is in the binary.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /objectmount /usr/bin/objectmount
ENV PATH=/usr/bin
ENTRYPOINT ["/usr/bin/objectmount"]
CMD ["agent"]
