package main

import (
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"unicode"

	"github.com/spf13/cobra"

	"objectmount/objects"
	"objectmount/store"
)

// serveAccount is the account of the one key of a server without a keys file.
const serveAccount = "local"

func newServe(a *app, p places) *cobra.Command {
	var (
		dataDir, listen, publicURL string
		keysFile, cert, key        string
		maxSize                    byteSize
	)
	c := &cobra.Command{
		Use:   "serve",
		Short: "be a Storage Objects API server",
		Long: `Serve the Storage Objects API from a directory: metadata in SQLite, content as
files, uploads and downloads by signed URLs. The public SDKs work against it
unchanged when RUNLOOP_BASE_URL points here.

Who may call: the keys of --api-keys-file ("account:key" lines); without it the
key in RUNLOOP_API_KEY; without that a key made once and kept in the data
directory, with the line that exports it printed at start.`,
		Example: `  objectmount serve --data-dir ./data
  objectmount serve --listen :443 --tls-cert cert.pem --tls-key key.pem --public-url https://objects.example.com`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			log, err := a.logger()
			if err != nil {
				return err
			}
			defer log.Sync() //nolint:errcheck // standard error may be a pipe that cannot sync
			if (cert == "") != (key == "") {
				return usagef("--tls-cert and --tls-key go together")
			}
			var tc *tls.Config
			if cert != "" {
				pair, err := tls.LoadX509KeyPair(cert, key)
				if err != nil {
					return fmt.Errorf("load TLS certificate: %w", err)
				}
				tc = &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
			}
			if err := os.MkdirAll(dataDir, 0o700); err != nil {
				return err
			}
			keys, hint, err := serveKeys(keysFile, dataDir)
			if err != nil {
				return err
			}
			ln, err := new(net.ListenConfig).Listen(cmd.Context(), "tcp", listen)
			if err != nil {
				return hinted{err, "choose another address with --listen"}
			}
			defer ln.Close()
			st, err := store.Open(cmd.Context(), store.Options{
				DataDir: dataDir, PublicURL: publicURL, Keys: keys, Log: log, MaxObjectSize: int64(maxSize),
			})
			if err != nil {
				return err
			}
			scheme := "http"
			if tc != nil {
				scheme = "https"
			}
			url := publicURL
			if url == "" {
				url = scheme + "://" + reachable(ln.Addr())
			}
			fmt.Fprintf(a.err, "serving Storage Objects from %s\n  export RUNLOOP_BASE_URL=%s\n%s", dataDir, url, hint)
			serveErr := st.Serve(cmd.Context(), ln, tc)
			if err := st.Close(); err != nil && serveErr == nil {
				serveErr = err
			}
			return serveErr
		},
	}
	f := c.Flags()
	f.StringVar(&dataDir, "data-dir", p.serve, "where objects and their metadata live")
	f.StringVar(&listen, "listen", "127.0.0.1:8817", "address and port; port 0 takes a free one")
	f.StringVar(&publicURL, "public-url", "", "URL under which clients reach this server, for signed URLs (default: as each request came)")
	f.StringVar(&keysFile, "api-keys-file", "", "file of account:key lines")
	f.StringVar(&cert, "tls-cert", "", "PEM file of the certificate chain")
	f.StringVar(&key, "tls-key", "", "PEM file of the private key")
	f.Var(&maxSize, "max-object-size", "refuse larger uploads (default: no limit but the disk)")
	return c
}

// serveKeys finds who may call the server, and the line that tells its user.
func serveKeys(keysFile, dataDir string) ([]store.Account, string, error) {
	if keysFile != "" {
		keys, err := store.LoadKeys(keysFile)
		return keys, "", err
	}
	if v := os.Getenv("RUNLOOP_API_KEY"); v != "" {
		return []store.Account{{Name: serveAccount, Key: objects.Secret(v)}}, "", nil
	}
	key, _, err := store.LocalKey(dataDir)
	if err != nil {
		return nil, "", err
	}
	// The line tells where the key is, not what it is: standard error ends up
	// in journals and terminals' scrollback.
	file, err := filepath.Abs(filepath.Join(dataDir, store.LocalKeyFile))
	if err != nil {
		return nil, "", err
	}
	hint := fmt.Sprintf("  export RUNLOOP_API_KEY=$(cat %s)\n", shellQuote(file))
	return []store.Account{{Name: serveAccount, Key: key}}, hint, nil
}

// shellQuote makes a path one word of a shell command.
func shellQuote(s string) string {
	if strings.IndexFunc(s, func(r rune) bool {
		return !strings.ContainsRune("/._-+", r) && !unicode.IsLetter(r) && !unicode.IsDigit(r)
	}) < 0 {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// reachable turns a listener's address into one a client on this machine can
// use: an unspecified host becomes the loopback address.
func reachable(addr net.Addr) string {
	t, ok := addr.(*net.TCPAddr)
	if !ok {
		return addr.String()
	}
	if t.IP.IsUnspecified() {
		return net.JoinHostPort("127.0.0.1", fmt.Sprint(t.Port))
	}
	return t.String()
}
