# The project's commands. Each is what a person would type; CI types `make test`.

GO ?= go
STATICCHECK = honnef.co/go/tools/cmd/staticcheck@v0.8.2

.PHONY: build demo test test-deps lint bench bench-extract bench-inflate bench-index bench-fetch bench-lazy plots soak-fetch soak-mount clean

build: ## the static binary, bin/objectmount
	CGO_ENABLED=0 $(GO) build -trimpath -o bin/objectmount ./cmd/objectmount

demo: ## the whole story on this machine; needs nothing but Go
	@$(GO) run ./cmd/objectmount demo

test: test-deps ## everything that must be true; installs what it needs
	./.ci/check-format
	$(GO) vet ./...
	$(GO) test -timeout 12m ./...
	$(GO) test -timeout 12m -race -short ./agent ./cache ./extract ./index ./mount ./objects ./internal/...
	./.ci/check-leftovers

# What the tests use beyond Go: Debian's packages, and an S3 server that is
# built into bin/. Nothing is installed where everything is there already, so
# a second run needs no network.
test-deps:
	./.ci/install-test-deps

soak-fetch: test-deps ## 1,000 random schedules of network faults; 2 GiB over connections that are cut; a minute or two
	$(GO) test -count 1 -timeout 60m -v ./objects -run 'TestRandomFaults|TestInterruptedDownload|TestS3|TestStoreThroughBrokenConnections' -faultcount 1000 -soaksize 2147483648

soak-mount: test-deps ## fio and stress-ng in a lazy mount for ten minutes (root)
	OBJECTMOUNT_SOAK=$${OBJECTMOUNT_SOAK:-10m} $(GO) test -count 1 -timeout 60m -v ./cmd/objectmount -run TestLazySoak

lint: ## staticcheck, at a pinned version
	$(GO) run $(STATICCHECK) ./...

bench: ## Go benchmarks of every room
	$(GO) test -run '^$$' -bench . -benchmem ./...

bench-extract: ## whole-process extraction beside the installed peers (root)
	$(GO) run ./bench/extract

bench-inflate: ## our gzip decoder beside the installed peers, as whole processes
	$(GO) run ./bench/inflate

bench-index: ## indexes: built, opened, read; spans in the cache beside a pread; extraction with an index and without
	$(GO) test -run '^$$' -bench . -benchmem ./index ./cache
	$(GO) test -run '^$$' -bench ExtractWithIndex -benchtime 10x ./extract

bench-fetch: ## objects from far and near beside curl and aria2c, and from a URL to a tree (root)
	$(GO) run ./bench/fetch

bench-lazy: ## lazy mounts: time to the first file, bytes fetched, reading, beside extraction and peers (root)
	$(GO) run ./bench/lazy -out docs/lazy.json

plots: ## the pictures of README.md, from the figures of the last bench-lazy (needs gnuplot)
	$(GO) run ./bench/lazy plots docs/lazy.json docs

clean:
	rm -rf bin bench/out
