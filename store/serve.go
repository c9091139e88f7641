package store

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"go.uber.org/zap"
)

const (
	headerTimeout = 30 * time.Second // from a connection's or request's first byte to the end of its header
	maxHeader     = 64 << 10         // bytes
	// idleTimeout is long because the public clients keep four connections
	// and make a new one whenever one is closed, at once, for ever.
	idleTimeout = time.Hour
	pingAfter   = time.Minute      // of silence on an HTTP/2 connection; finds peers that are gone
	pingTimeout = 30 * time.Second // to answer that
	maxStreams  = 250              // of one HTTP/2 connection at a time
)

// Serve answers on l until ctx ends: HTTP/1.1 and HTTP/2 with prior knowledge,
// or with tc TLS with both by ALPN. Then it takes no more, waits up to
// Options.ShutdownGrace for requests under way, cuts what is left and returns
// nil. It closes l. It fails when l does, or when tc has no certificate.
// A store can serve several listeners at once.
func (s *Store) Serve(ctx context.Context, l net.Listener, tc *tls.Config) error {
	srv, err := s.httpServer(tc)
	if err != nil {
		return errors.Join(fmt.Errorf("serve: %w", err), l.Close())
	}
	s.log.Info("serving", zap.Stringer("address", l.Addr()), zap.Bool("tls", tc != nil))

	ended := make(chan error, 1)
	go func() {
		if tc != nil {
			ended <- srv.ServeTLS(l, "", "")
		} else {
			ended <- srv.Serve(l)
		}
	}()
	select {
	case err := <-ended:
		return fmt.Errorf("serve on %s: %w", l.Addr(), err)
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.opts.ShutdownGrace)
	defer cancel()
	err = srv.Shutdown(grace)
	if errors.Is(err, context.DeadlineExceeded) {
		s.log.Warn("cut requests that did not end in time", zap.Duration("grace", s.opts.ShutdownGrace),
			zap.Int64("requests", s.stats.now.Load()))
		err = srv.Close()
	}
	<-ended
	if err != nil {
		return fmt.Errorf("stop serving on %s: %w", l.Addr(), err)
	}
	s.log.Info("stopped", zap.Stringer("address", l.Addr()))
	return nil
}

// httpServer is the server with its limits.
func (s *Store) httpServer(tc *tls.Config) (*http.Server, error) {
	if tc != nil && len(tc.Certificates) == 0 && tc.GetCertificate == nil && tc.GetConfigForClient == nil {
		return nil, errors.New("the TLS configuration has no certificate")
	}
	stdlog, err := zap.NewStdLogAt(s.log.Named("http"), zap.WarnLevel)
	if err != nil {
		return nil, err
	}
	var p http.Protocols
	p.SetHTTP1(true)
	p.SetHTTP2(true)
	p.SetUnencryptedHTTP2(tc == nil)
	return &http.Server{
		Handler:           s.handler,
		Protocols:         &p,
		TLSConfig:         tc,
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		HTTP2:             &http.HTTP2Config{SendPingTimeout: pingAfter, PingTimeout: pingTimeout, MaxConcurrentStreams: maxStreams},
		ErrorLog:          stdlog,
	}, nil
}
