package agent_test

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"objectmount/agent"
)

// TestAskServer: whoever asks for the status hears of mounts that other
// processes serve, and of those whose server has died.
func TestAskServer(t *testing.T) {
	w := needFUSE(t)
	file := filepath.Join(w.dir, "a.tgz")
	data, content := bigTree(3)
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	cfg := w.config()
	cfg.Serve, cfg.Prefetch = true, agent.PrefetchAll
	server, err := agent.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := server.Mount(t.Context(), agent.Mount{LocalFile: file, ObjectPath: w.path("a"), Mode: "lazy"}); err != nil {
		t.Fatal(err)
	}
	if got, err := w.cat("a/big/1"); err != nil || got != string(content(1)) {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
	var it agent.ItemStatus
	w.eventually("all to be cached", func() bool {
		it = w.item(w.agent().Status(), "a")
		return it.Lazy != nil && it.Lazy.Served && it.Lazy.Complete && it.Lazy.Prefetch.State == "done"
	})
	if l := it.Lazy; l.ServerPID != os.Getpid() || l.Present != l.Spans || l.Reads == 0 || it.Entries != 7 || it.Note != "" || l.Prefetch.Policy != "all" {
		t.Errorf("%+v %+v", it, l)
	}
	sockets := func() (names []string) {
		names, _ = filepath.Glob(filepath.Join(w.dir, "run/served/*"))
		return names
	}
	if st, err := os.Stat(filepath.Join(w.dir, "run/served")); err != nil || st.Mode().Perm() != 0o700 || len(sockets()) != 1 {
		t.Errorf("%v %v %v", st, err, sockets())
	}
	// A socket that does not answer as it should is said so, and waited for
	// not longer than is bearable.
	name := sockets()[0]
	if err := os.Rename(name, name+"~"); err != nil {
		t.Fatal(err)
	}
	fake := &http.Server{Handler: http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) { fmt.Fprint(rw, `{"items": []}`) })}
	l, err := net.Listen("unix", name)
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- fake.Serve(l) }()
	if it = w.item(w.agent().Status(), "a"); it.Lazy.Served || !strings.Contains(it.Note, "does not say") {
		t.Errorf("%+v", it)
	}
	_ = fake.Close()
	<-served
	_ = os.Remove(name)
	if it = w.item(w.agent().Status(), "a"); it.Lazy.Served || it.Note != "" || it.State != agent.StateReady {
		t.Errorf("%+v", it)
	}
	if err := os.Rename(name+"~", name); err != nil {
		t.Fatal(err)
	}
	if err := w.agent().Unmount(t.Context(), w.path("a"), agent.UnmountUnmodified); err != nil {
		t.Fatal(err)
	}
	if err := server.Serve(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.eventually("the socket to be gone", func() bool { return len(sockets()) == 0 })
}
