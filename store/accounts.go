package store

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"unicode"

	"golang.org/x/sys/unix"

	"objectmount/objects"
)

// Account is one API key and whose it is. Several keys of one name are keys
// of one account, which is how a key is changed without a gap.
type Account struct {
	Name string
	Key  objects.Secret
}

const (
	minKeyLen   = 8 // shorter keys are typing errors, or guessable
	maxKeyLen   = 512
	maxKeysFile = 1 << 20 // bytes
)

var accountName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$`)

func (a Account) check() error {
	if !accountName.MatchString(a.Name) {
		return errors.New("an account's name is 1 to 64 letters, digits and ._@- and begins with a letter or digit")
	}
	key := a.Key.Reveal()
	if len(key) < minKeyLen || len(key) > maxKeyLen {
		return fmt.Errorf("the key of account %s has %d characters; %d to %d are possible", a.Name, len(key), minKeyLen, maxKeyLen)
	}
	if strings.IndexFunc(key, func(r rune) bool { return r <= ' ' || r > unicode.MaxASCII || r == 0x7f }) >= 0 {
		return fmt.Errorf("the key of account %s has characters that cannot be sent in a header", a.Name)
	}
	return nil
}

// keyring finds the account of a key. It knows keys only by their SHA-256, so
// that the time a look-up takes says nothing about the keys themselves.
type keyring map[[sha256.Size]byte]string

func newKeyring(accounts []Account) (keyring, error) {
	if len(accounts) == 0 {
		return nil, errors.New("no API key given: nobody could call")
	}
	k := make(keyring, len(accounts))
	for _, a := range accounts {
		if err := k.add(a); err != nil {
			return nil, err
		}
	}
	return k, nil
}

func (k keyring) add(a Account) error {
	if err := a.check(); err != nil {
		return err
	}
	sum := sha256.Sum256([]byte(a.Key.Reveal()))
	if other, taken := k[sum]; taken && other != a.Name {
		return fmt.Errorf("accounts %s and %s have the same key", other, a.Name)
	}
	k[sum] = a.Name
	return nil
}

// account tells who is calling.
func (k keyring) account(r *http.Request) (string, error) {
	scheme, key, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	key = strings.TrimLeft(key, " ")
	if !strings.EqualFold(scheme, "Bearer") || key == "" {
		return "", refuse(http.StatusUnauthorized, "unauthenticated", "an API key is needed: send Authorization: Bearer KEY")
	}
	name, ok := k[sha256.Sum256([]byte(key))]
	if !ok {
		return "", refuse(http.StatusUnauthorized, "unauthenticated", "the API key is not known to this server")
	}
	return name, nil
}

// LoadKeys reads a file of lines account:key. Blank lines and lines that
// begin with # are skipped. An error names file and line, never a key.
func LoadKeys(path string) ([]Account, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read API keys: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxKeysFile+1))
	if err != nil {
		return nil, fmt.Errorf("read API keys: %w", err)
	}
	if len(b) > maxKeysFile {
		return nil, fmt.Errorf("read API keys: %s is larger than %d bytes", path, maxKeysFile)
	}
	var all []Account
	ring := keyring{}
	lines := bufio.NewScanner(bytes.NewReader(b))
	lines.Buffer(nil, maxKeysFile+1)
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		name, key, ok := strings.Cut(line, ":")
		a := Account{Name: strings.TrimSpace(name), Key: objects.Secret(strings.TrimSpace(key))}
		if !ok {
			// The line may be a bare key, so it is not shown.
			return nil, fmt.Errorf("%s:%d: a line must be account:key", path, n)
		}
		if err := ring.add(a); err != nil {
			return nil, fmt.Errorf("%s:%d: %w", path, n, err)
		}
		all = append(all, a)
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("%s: no account:key line in it", path)
	}
	return all, nil
}

// LocalKeyFile is the name of LocalKey's file in the data directory.
const LocalKeyFile = "api-key"

// LocalKey gives the key kept in dataDir, making dataDir (0700) and the key
// (0600) when they are absent; made says that the key is new.
func LocalKey(dataDir string) (key objects.Secret, made bool, err error) {
	if err := os.MkdirAll(dataDir, 0o700); err != nil {
		return "", false, err
	}
	path := filepath.Join(dataDir, LocalKeyFile)
	_, err = os.Lstat(path)
	made = errors.Is(err, fs.ErrNotExist)
	key, err = keepSecret(path, func() string { return "ak_" + rand.Text() })
	if err == nil {
		err = Account{Name: "local", Key: key}.check()
	}
	if err != nil {
		return "", false, fmt.Errorf("API key in %s: %w", path, err)
	}
	return key, made, nil
}

// keepSecret reads a one-line file, making it 0600 with a fresh value when it
// is absent. A file that others can read is refused: what it holds is no
// secret any more.
func keepSecret(path string, fresh func() string) (objects.Secret, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if errors.Is(err, fs.ErrNotExist) {
		if err := writeSecret(path, fresh()); err != nil {
			return "", err
		}
		f, err = os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW, 0)
	}
	if err != nil {
		return "", err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return "", err
	}
	if !fi.Mode().IsRegular() || fi.Mode().Perm()&0o077 != 0 {
		return "", fmt.Errorf("others can read %s (mode %v): remove it to have a new one made, or chmod 600 it if nobody did", path, fi.Mode())
	}
	b, err := io.ReadAll(io.LimitReader(f, 4096))
	if err != nil {
		return "", err
	}
	return objects.Secret(strings.TrimSpace(string(b))), nil
}

// writeSecret makes the file whole or not at all, and never over another.
func writeSecret(path, value string) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*") // 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = io.WriteString(f, value+"\n")
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Link(f.Name(), path); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return syncDir(filepath.Dir(path))
}
