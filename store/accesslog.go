package store

import (
	"context"
	"errors"
	"net/http"
	"runtime/debug"
	"time"

	"go.uber.org/zap"
)

type accountKey struct{}

// noteAccount tells the access log who called.
func noteAccount(r *http.Request, account string) {
	if at, ok := r.Context().Value(accountKey{}).(*string); ok {
		*at = account
	}
}

// shownPath is a request's path as a log may show it: never the query, which
// is where signatures are.
func shownPath(r *http.Request) string {
	const most = 200 // bytes; the longest path of ours, a metadata key's, may be cut
	if p := r.URL.Path; len(p) > most {
		return p[:most] + "…"
	}
	return r.URL.Path
}

// logged counts each request, writes one line for it, and answers 500 for a
// handler that panics.
func (s *Store) logged(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		var account string
		a := &answer{ResponseWriter: w, rc: http.NewResponseController(w), idle: s.opts.IdleTimeout, count: &s.stats.bytesOut}
		_ = a.rc.SetWriteDeadline(time.Time{}) // that of the connection's last answer
		s.stats.now.Add(1)
		defer func() {
			if p := recover(); p != nil {
				if err, ok := p.(error); !ok || !errors.Is(err, http.ErrAbortHandler) {
					s.log.Error("panic", zap.Any("panic", p), zap.ByteString("stack", debug.Stack()))
				}
				if a.status != 0 {
					// Too late to say so; the broken connection does.
					defer panic(http.ErrAbortHandler)
				} else {
					s.writeError(a, r, errors.New("panic"))
				}
			}
			// net/http now reads what is left of the body.
			_ = a.rc.SetReadDeadline(time.Now().Add(bodyTimeout))
			s.stats.now.Add(-1)
			s.count(a.status)
			s.log.Info("request",
				zap.String("method", r.Method), zap.String("path", shownPath(r)), zap.Int("status", a.status),
				zap.Int64("bytes", a.bytes), zap.Duration("took", time.Since(start)), zap.String("account", account),
				zap.String("remote", r.RemoteAddr), zap.String("proto", r.Proto))
		}()
		next.ServeHTTP(a, r.WithContext(context.WithValue(r.Context(), accountKey{}, &account)))
	})
}

func (s *Store) count(status int) {
	s.stats.requests.Add(1)
	switch {
	case status >= 500:
		s.stats.serverErrors.Add(1)
	case status >= 400:
		s.stats.clientErrors.Add(1)
	}
}
