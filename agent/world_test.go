package agent_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"objectmount/agent"
	"objectmount/objects"
	"objectmount/store"
)

// The test binary is also the agent that some tests kill: see crash_test.go.
func TestMain(m *testing.M) {
	if os.Getenv(childEnv) != "" {
		os.Exit(child())
	}
	goleak.VerifyTestMain(m)
}

// canary is in every key, so that a key that leaks is found.
const canary = "canary0key"

// world is a machine for one test: a real server, and directories for a spec,
// an agent and its mounts.
type world struct {
	*testing.T
	dir    string // everything of this test
	mnt    string // mounts go below it
	spec   string // mounts.json
	url    string
	client *objects.Client
	clock  *atomic.Int64 // what the server's clock is ahead, in ns
	logs   *buffer

	handler http.Handler // the server's
	// intercept may answer a request in the server's place.
	intercept atomic.Pointer[func(http.ResponseWriter, *http.Request) bool]
	calls     atomic.Int64 // API requests and uploads
	contents  atomic.Int64 // downloads
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{T: t, dir: t.TempDir(), clock: new(atomic.Int64), logs: new(buffer)}
	w.mnt = filepath.Join(w.dir, "mnt")
	w.spec = filepath.Join(w.dir, "etc", "mounts.json")
	for _, dir := range []string{w.mnt, filepath.Dir(w.spec)} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	w.serve()
	key := objects.Secret("ak_" + canary)
	var err error
	if w.client, err = objects.New(objects.Options{BaseURL: w.url, Key: key, Timeout: 20 * time.Second}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		w.client.Close()
		w.checkNothingLeft()
	})
	return w
}

// serve runs the real server behind a listener that counts.
func (w *world) serve() {
	w.Helper()
	s, err := store.Open(w.Context(), store.Options{
		DataDir: filepath.Join(w.dir, "server"), Keys: []store.Account{{Name: "test", Key: "ak_" + canary}},
		Now: func() time.Time { return time.Now().Add(time.Duration(w.clock.Load())) },
	})
	if err != nil {
		w.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		w.Fatal(err)
	}
	w.url = "http://" + l.Addr().String()
	w.handler = s.Handler()
	srv := &http.Server{Protocols: new(http.Protocols), Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if isDownload(r) {
			w.contents.Add(1)
		} else {
			w.calls.Add(1)
		}
		if f := w.intercept.Load(); f != nil && (*f)(rw, r) {
			return
		}
		w.handler.ServeHTTP(rw, r)
	})}
	srv.Protocols.SetHTTP1(true)
	srv.Protocols.SetUnencryptedHTTP2(true)
	done := make(chan struct{})
	go func() {
		defer close(done)
		srv.Serve(l)
	}()
	w.Cleanup(func() {
		srv.Close()
		<-done
		if err := s.Close(); err != nil {
			w.Error(err)
		}
	})
}

// isDownload tells a download from an upload and from a call of the API.
func isDownload(r *http.Request) bool {
	return r.Method == http.MethodGet && r.Header.Get("Authorization") == ""
}

// stalling passes on so many bytes, and then no more until the request ends.
type stalling struct {
	http.ResponseWriter
	r    *http.Request
	left int
}

func (s *stalling) Write(p []byte) (int, error) {
	if s.left -= len(p); s.left < 0 {
		s.ResponseWriter.(http.Flusher).Flush()
		<-s.r.Context().Done()
		return 0, s.r.Context().Err()
	}
	return s.ResponseWriter.Write(p)
}

// requests is how many requests of any kind came so far.
func (w *world) requests() int64 { return w.calls.Load() + w.contents.Load() }

// upload puts an object on the server and gives its id.
func (w *world) upload(name string, data []byte) string {
	w.Helper()
	obj, err := w.client.Upload(w.Context(), objects.CreateRequest{Name: name, ContentType: objects.DetectContentType(name)},
		objects.Body{Size: int64(len(data)), Open: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil }}, nil)
	if err != nil {
		w.Fatal(err)
	}
	return obj.ID
}

// path is a path among the mounts.
func (w *world) path(name string) string { return filepath.Join(w.mnt, name) }

// entry is a mount of the spec. more is JSON of other keys.
func (w *world) entry(id, name string, more ...string) string {
	target := w.path(name)
	if strings.HasSuffix(name, "/") {
		target += "/"
	}
	return fmt.Sprintf(`{"type": "object_mount", "object_id": %q, "object_path": %q%s}`,
		id, target, strings.Join(append([]string{""}, more...), ", "))
}

// write makes the entries the spec, as an editor would: by a rename.
func (w *world) write(entries ...string) {
	w.Helper()
	w.writeText("{\"mounts\": [\n" + strings.Join(entries, ",\n") + "]}\n")
}

func (w *world) writeText(text string) {
	w.Helper()
	if err := os.WriteFile(w.spec+"~", []byte(text), 0o644); err != nil {
		w.Fatal(err)
	}
	if err := os.Rename(w.spec+"~", w.spec); err != nil {
		w.Fatal(err)
	}
}

func (w *world) config() agent.Config {
	return agent.Config{
		SpecPath: w.spec, StateDir: filepath.Join(w.dir, "state"), RunDir: filepath.Join(w.dir, "run"), CacheDir: filepath.Join(w.dir, "cache"),
		Client: w.client, Log: w.logger(), Version: "test",
		RetryMin: 20 * time.Millisecond, RetryMax: 200 * time.Millisecond, RetryBudget: 5 * time.Second,
		Debounce: 20 * time.Millisecond,
	}
}

func (w *world) logger() *zap.Logger {
	enc := zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig())
	return zap.New(zapcore.NewCore(enc, w.logs, zap.DebugLevel))
}

// agent makes an agent as another process would: without memory.
func (w *world) agent() *agent.Agent {
	w.Helper()
	a, err := agent.New(w.config())
	if err != nil {
		w.Fatal(err)
	}
	return a
}

// once runs Once and wants these states, by name below mnt.
func (w *world) once(want map[string]agent.State) agent.Status {
	w.Helper()
	st, err := w.agent().Once(w.Context())
	if err != nil {
		w.Fatal(err)
	}
	w.states(st, want)
	return st
}

func (w *world) states(st agent.Status, want map[string]agent.State) {
	w.Helper()
	got := map[string]agent.State{}
	for _, it := range st.Items {
		rel, _ := filepath.Rel(w.mnt, it.Path)
		got[rel] = it.State
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		w.Fatalf("states are %v, want %v\n%s", got, want, w.logs)
	}
}

func (w *world) item(st agent.Status, name string) agent.ItemStatus {
	w.Helper()
	for _, it := range st.Items {
		if it.Path == w.path(name) {
			return it
		}
	}
	w.Fatalf("no item %s in %+v", name, st)
	return agent.ItemStatus{}
}

func (w *world) read(name string) string {
	w.Helper()
	b, err := os.ReadFile(w.path(name))
	if err != nil {
		w.Fatal(err)
	}
	return string(b)
}

func (w *world) edit(name, text string) {
	w.Helper()
	if err := os.WriteFile(w.path(name), []byte(text), 0o644); err != nil {
		w.Fatal(err)
	}
}

func (w *world) exists(name string) bool {
	_, err := os.Lstat(w.path(name))
	return err == nil
}

func (w *world) gone(names ...string) {
	w.Helper()
	for _, name := range names {
		if w.exists(name) {
			w.Errorf("%s is still there", name)
		}
	}
}

// eventually waits until ok, for a time that nothing should ever take.
func (w *world) eventually(what string, ok func() bool) {
	w.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			w.Fatalf("waited in vain for %s\n%s", what, w.logs)
		}
	}
}

// checkNothingLeft holds after every test: no stage, no temporary file, no
// lock without a receipt, and no secret in anything that was written.
func (w *world) checkNothingLeft() {
	err := filepath.WalkDir(w.dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := e.Name()
		if strings.Contains(name, ".stage-") {
			w.Errorf("stage left behind: %s", path)
		}
		if filepath.Base(filepath.Dir(path)) != "mounts" || filepath.Dir(filepath.Dir(path)) != filepath.Join(w.dir, "state") {
			return nil
		}
		if strings.HasPrefix(name, ".") {
			w.Errorf("temporary file left behind: %s", path)
		}
		if id, ok := strings.CutSuffix(name, ".lock"); ok {
			if _, err := os.Stat(filepath.Join(filepath.Dir(path), id+".json")); err != nil {
				w.Errorf("lock without receipt: %s", path)
			}
		}
		b, err := os.ReadFile(path)
		if err == nil && leaks(string(b)) {
			w.Errorf("secret in %s:\n%s", path, b)
		}
		return nil
	})
	if err != nil {
		w.Error(err)
	}
	if text := w.logs.String(); leaks(text) {
		w.Errorf("secret in the log:\n%s", text)
	}
}

// leaks says whether a text has the key or the query of a signed URL in it.
func leaks(text string) bool {
	for _, mark := range []string{canary, "signature=", "sig=", "expires="} {
		if strings.Contains(strings.ToLower(text), mark) {
			return true
		}
	}
	return false
}

// buffer is a log that may be read while it is written.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) Sync() error { return nil }

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// daemon runs an agent until the test ends or stop is called.
type daemon struct {
	*agent.Agent
	w    *world
	stop func() // waits until Run has returned
}

func (w *world) daemon(change ...func(*agent.Config)) *daemon {
	w.Helper()
	cfg := w.config()
	for _, f := range change {
		f(&cfg)
	}
	a, err := agent.New(cfg)
	if err != nil {
		w.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }()
	stop := sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			w.Errorf("Run: %v", err)
		}
	})
	w.Cleanup(stop)
	d := &daemon{a, w, stop}
	w.eventually("the agent to answer", func() bool {
		_, err := agent.QueryStatus(context.Background(), cfg.RunDir)
		return err == nil
	})
	return d
}

// status asks over the socket, as everyone else must.
func (d *daemon) status() agent.Status {
	d.w.Helper()
	st, err := agent.QueryStatus(context.Background(), filepath.Join(d.w.dir, "run"))
	if err != nil {
		d.w.Fatal(err)
	}
	if leaks(fmt.Sprintf("%+v", st)) {
		d.w.Errorf("secret in the status: %+v", st)
	}
	return st
}

// settles waits for these states.
func (d *daemon) settles(want map[string]agent.State) agent.Status {
	d.w.Helper()
	var st agent.Status
	d.w.eventually(fmt.Sprint(want), func() bool {
		st = d.status()
		got := map[string]agent.State{}
		for _, it := range st.Items {
			rel, _ := filepath.Rel(d.w.mnt, it.Path)
			got[rel] = it.State
		}
		return fmt.Sprint(got) == fmt.Sprint(want)
	})
	return st
}
