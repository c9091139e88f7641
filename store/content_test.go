package store

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/iotest"
	"time"

	"objectmount/objects"
)

// files lists whole uploads and those on their way.
func (s *server) files() (all []string) {
	return contentFiles(s.t, s.store.opts.DataDir)
}

func contentFiles(t *testing.T, dataDir string) (all []string) {
	for _, dir := range []string{"incoming/*", "content/*/*"} {
		found, err := filepath.Glob(filepath.Join(dataDir, dir))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, found...)
	}
	return all
}

// noise is n bytes that do not repeat.
func noise(n int, seed byte) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{seed}).Read(b)
	return b
}

// eventually waits for what comes soon, but not at once.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for range 2000 {
		if is() {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Fatalf("%s: not after 10 s", what)
}

func TestUploads(t *testing.T) {
	s := start(t, Options{})
	big := noise(3<<20+17, 1)
	for name, test := range map[string]struct {
		client  *http.Client
		content []byte
		length  int64
	}{
		"with Content-Length":   {s.plain, big, int64(len(big))},
		"chunked":               {s.plain, big, -1},
		"empty":                 {s.plain, nil, 0},
		"empty and chunked":     {s.plain, nil, -1},
		"by h2c":                {s.calls, big, int64(len(big))},
		"by h2c, length unsaid": {s.calls, big, -1},
	} {
		t.Run(name, func(t *testing.T) {
			v := s.create(name, "")
			req, _ := http.NewRequest("PUT", v.UploadURL, io.NopCloser(bytes.NewReader(test.content)))
			req.ContentLength = test.length
			if test.length == 0 {
				req.Body = nil
			}
			up := s.send(test.client, req)
			if up.status != 200 {
				t.Fatalf("upload: %d %s", up.status, up.body)
			}
			done := s.ask("POST", "/v1/objects/"+v.ID+"/complete", "")
			if *done.SizeBytes != int64(len(test.content)) {
				t.Errorf("size_bytes %d", *done.SizeBytes)
			}
			for _, c := range []*http.Client{s.plain, s.calls} {
				req, _ := http.NewRequest("GET", s.downloadURL(v.ID, ""), nil)
				down := s.send(c, req)
				if !bytes.Equal(down.body, test.content) || down.header.Get("Etag") != up.header.Get("Etag") {
					t.Errorf("%s: %d bytes came back of %d, ETag %s of %s", down.proto, len(down.body), len(test.content),
						down.header.Get("Etag"), up.header.Get("Etag"))
				}
			}
		})
	}
}

func TestExpectContinue(t *testing.T) {
	s := start(t, Options{MaxObjectSize: 10})
	for name, test := range map[string]struct {
		edit   func(string) string
		length int
		first  string
	}{
		"is told to go on":            {func(u string) string { return u }, 5, "HTTP/1.1 100 Continue"},
		"is refused before it sends":  {func(u string) string { return u + "x" }, 5, "HTTP/1.1 403 Forbidden"},
		"is refused for a large body": {func(u string) string { return u }, 11, "HTTP/1.1 413 Request Entity Too Large"},
	} {
		t.Run("a client that asks "+name, func(t *testing.T) {
			v := s.create("a", "")
			conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			path := strings.TrimPrefix(test.edit(v.UploadURL), s.url)
			fmt.Fprintf(conn, "PUT %s HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: %d\r\nConnection: close\r\n\r\n", path, test.length)
			r := bufio.NewReader(conn)
			line, err := r.ReadString('\n')
			if strings.TrimSpace(line) != test.first {
				t.Fatalf("%q (%v)", line, err)
			}
			if strings.Contains(line, "100") {
				fmt.Fprint(conn, "12345")
				rest, _ := io.ReadAll(r)
				if !strings.Contains(string(rest), "HTTP/1.1 200 OK") {
					t.Errorf("%s", rest)
				}
			}
		})
	}
}

func TestUploadLimits(t *testing.T) {
	s := start(t, Options{MaxObjectSize: 1 << 20})
	v := s.create("a", "")
	s.want("a body beyond the limit", s.put(v.UploadURL, make([]byte, 1<<20+1)), 413, "too_large")
	req, _ := http.NewRequest("PUT", v.UploadURL, io.NopCloser(bytes.NewReader(make([]byte, 1<<20+1))))
	req.ContentLength = -1
	if a, err := trySend(s.plain, req); err == nil { // else the connection broke before the answer was read
		s.want("a chunked body beyond the limit", a, 413, "too_large")
	}
	req, _ = http.NewRequest("PUT", v.UploadURL, strings.NewReader("part"))
	req.Header.Set("Content-Range", "bytes 0-3/10")
	s.want("a part", s.send(s.plain, req), 400, "invalid_request")
	eventually(t, "nothing stays of refused uploads", func() bool { return len(s.files()) == 0 })
	if a := s.put(v.UploadURL, make([]byte, 1<<20)); a.status != 200 {
		t.Errorf("a body at the limit: %d %s", a.status, a.body)
	}
}

// An upload that breaks off leaves the object as it was, whichever way it
// breaks.
func TestBrokenUploads(t *testing.T) {
	s := start(t, Options{})
	v := s.create("a", "")
	if a := s.put(v.UploadURL, []byte("whole")); a.status != 200 {
		t.Fatal(a.status)
	}
	for name, c := range map[string]*http.Client{"HTTP/1.1": s.plain, "h2c": s.calls} {
		for _, length := range []int64{1 << 20, -1} {
			req, _ := http.NewRequest("PUT", v.UploadURL, io.MultiReader(
				bytes.NewReader(make([]byte, 300<<10)), iotest.ErrReader(errors.New("the client fails"))))
			req.ContentLength = length
			if a, err := trySend(c, req); err == nil {
				t.Errorf("%s: %d", name, a.status)
			}
		}
	}
	eventually(t, "broken uploads are noticed", func() bool {
		// HTTP/2 may tell of the end before the upload has begun.
		return s.store.Stats().UploadsFailed >= 2 && s.store.Stats().Active == 0 && len(s.files()) == 1
	})
	s.ask("POST", "/v1/objects/"+v.ID+"/complete", "")
	if got := s.content(v.ID); string(got) != "whole" {
		t.Errorf("content %q", got)
	}
}

func TestStalledTransfers(t *testing.T) {
	t.Parallel()
	const idle = 1500 * time.Millisecond
	s := start(t, Options{IdleTimeout: idle})
	v := s.create("a", "")
	dial := func() (*net.TCPConn, *bufio.Reader) {
		conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		return conn.(*net.TCPConn), bufio.NewReader(conn)
	}

	// One that stops is cut off …
	conn, r := dial()
	fmt.Fprintf(conn, "PUT %s HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\n12345", strings.TrimPrefix(v.UploadURL, s.url))
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != 408 {
		t.Errorf("stalled upload: %s", resp.Status)
	}
	resp.Body.Close()
	// … one that is slow, but moves, is not, though it lasts much longer.
	conn, r = dial()
	fmt.Fprintf(conn, "PUT %s HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\n", strings.TrimPrefix(v.UploadURL, s.url))
	for range 10 {
		time.Sleep(idle / 8)
		fmt.Fprint(conn, "x")
	}
	if resp, err = http.ReadResponse(r, nil); err != nil || resp.StatusCode != 200 {
		t.Fatalf("slow upload: %v %v", resp, err)
	}
	resp.Body.Close()
	// The connection goes on working after its deadlines have passed.
	time.Sleep(idle + idle/4)
	fmt.Fprintf(conn, "GET /nosuch HTTP/1.1\r\nHost: h\r\n\r\n")
	if resp, err = http.ReadResponse(r, nil); err != nil || resp.StatusCode != 404 {
		t.Fatalf("the next request: %v %v", resp, err)
	}
	resp.Body.Close()

	// A download that nobody takes is cut off, over HTTP/1.1 …
	big := s.object("big", make([]byte, 32<<20), "")
	url := s.downloadURL(big.ID, "")
	conn, _ = dial()
	_ = conn.SetReadBuffer(4 << 10)
	fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: h\r\n\r\n", strings.TrimPrefix(url, s.url))
	eventually(t, "the download begins", func() bool { return s.store.Stats().BytesOut > 0 })
	eventually(t, "the stalled download ends", func() bool { return s.store.Stats().Active == 0 })
	// … and one that is taken slowly, on HTTP/2 too, is not.
	for name, c := range map[string]*http.Client{"HTTP/1.1": s.plain, "h2c": s.calls} {
		req, _ := http.NewRequest("GET", url, nil)
		resp, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		total := int64(0)
		for range 10 {
			time.Sleep(idle / 8)
			n, err := io.CopyN(io.Discard, resp.Body, 2<<20)
			if total += n; err != nil {
				t.Fatalf("%s: slow download after %d bytes: %v", name, total, err)
			}
		}
		n, err := io.Copy(io.Discard, resp.Body)
		if total += n; total != 32<<20 || err != nil {
			t.Errorf("%s: slow download: %d bytes, %v", name, total, err)
		}
		resp.Body.Close()
	}
}

func TestConcurrentUploads(t *testing.T) {
	s := start(t, Options{})
	// Of different objects: each keeps its own bytes.
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			content := noise(200_000+i, byte(i))
			v := s.object(fmt.Sprint(i), content, "")
			if !bytes.Equal(s.content(v.ID), content) {
				t.Errorf("object %d has other bytes", i)
			}
		})
	}
	wg.Wait()
	// Of one object, with completes among them: one whole upload wins, and
	// nothing changes after complete.
	v := s.create("contended", "")
	var after [][]byte
	var mu sync.Mutex
	for i := range 16 {
		wg.Go(func() {
			if a := s.put(v.UploadURL, noise(150_000, byte(100+i))); a.status != 200 && a.status != 409 {
				t.Errorf("upload: %d %s", a.status, a.body)
			}
			a := s.call("POST", "/v1/objects/"+v.ID+"/complete", "")
			if a.status != 200 && a.status != 409 {
				t.Errorf("complete: %d %s", a.status, a.body)
			}
			got := s.content(v.ID)
			mu.Lock()
			defer mu.Unlock()
			after = append(after, got)
		})
	}
	wg.Wait()
	sums := map[[32]byte]bool{}
	for i := range 16 {
		sums[sha256.Sum256(noise(150_000, byte(100+i)))] = true
	}
	for _, got := range after {
		if !bytes.Equal(got, after[0]) || !sums[sha256.Sum256(got)] {
			t.Fatal("the content changed after complete, or is none of the uploads")
		}
	}
	if n := len(s.files()); n != 17 {
		t.Errorf("%d files for 17 objects", n)
	}
}

func TestDeleteDuringUpload(t *testing.T) {
	s := start(t, Options{})
	v := s.create("a", "")
	pr, pw := io.Pipe()
	done := make(chan answered, 1)
	go func() {
		req, _ := http.NewRequest("PUT", v.UploadURL, pr)
		a, _ := trySend(s.plain, req)
		done <- a
	}()
	pw.Write(make([]byte, 64<<10))
	eventually(t, "the upload begins", func() bool { return s.store.Stats().BytesIn > 0 })
	s.ask("POST", "/v1/objects/"+v.ID+"/delete", "")
	pw.Close()
	s.want("the upload", <-done, 409, "not_uploading")
	if len(s.files()) != 0 {
		t.Error("content of a deleted object stays")
	}
}

func TestDiskKeepsAReserve(t *testing.T) {
	s := start(t, Options{})
	v := s.create("a", "")
	s.store.content.free = func(string) (int64, error) { return minFree - 1, nil }
	a := s.put(v.UploadURL, []byte("x"))
	s.want("upload to a full disk", a, 507, "no_space")
	if a.header.Get("X-Should-Retry") != "false" || len(s.files()) != 0 {
		t.Errorf("retry %q, files %v", a.header.Get("X-Should-Retry"), s.files())
	}
	s.ask("POST", "/v1/objects/"+v.ID+"/delete", "")
}

// On a disk that is really full, uploads are refused and deletes work.
func TestFullDisk(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to mount a small tmpfs in a namespace of its own")
	}
	c := startChild(t, t.TempDir(), func(cmd *exec.Cmd) {
		cmd.Env = append(cmd.Env, tmpfsEnv+"=128m")
		cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	})
	v := c.create("large", "")
	req, _ := http.NewRequest("PUT", v.UploadURL, io.LimitReader(rand.NewChaCha8([32]byte{}), 256<<20))
	req.ContentLength = 256 << 20
	if a, err := trySend(c.plain, req); err == nil { // else the connection broke before the answer was read
		c.want("upload", a, 507, "no_space")
	}
	small := c.object("small", []byte("fits, as nothing is left of the other"), "")
	c.ask("POST", "/v1/objects/"+small.ID+"/delete", "")
	if v := c.ask("GET", "/v1/objects/"+v.ID, ""); v.State != objects.StateUploading {
		t.Errorf("%+v", v)
	}
}
