package objects

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// TestSpeaksHTTP1: a server of signed URLs that offers HTTP/2 is spoken to in
// HTTP/1.1, where no GOAWAY and no stuck connection holds up the requests of
// others. API calls do take HTTP/2.
func TestSpeaksHTTP1(t *testing.T) {
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", `"`+r.Proto+`"`)
		http.ServeContent(w, r, "", time.Time{}, strings.NewReader("the object"))
	}))
	s.EnableHTTP2 = true
	s.StartTLS()
	defer s.Close()
	for h2, want := range map[bool]string{false: `"HTTP/1.1"`, true: `"HTTP/2.0"`} {
		rt := newTransport(h2)
		rt.TLSClientConfig = s.Client().Transport.(*http.Transport).TLSClientConfig.Clone()
		rt.TLSClientConfig.NextProtos = nil
		r, err := Open(t.Context(), FixedURL(Secret(s.URL)), ReaderOptions{Transport: rt})
		if err != nil {
			t.Fatal(err)
		}
		if got := r.Identity().ETag; got != want {
			t.Errorf("%s was spoken, want %s", got, want)
		}
		r.Close()
		rt.CloseIdleConnections()
	}
}
