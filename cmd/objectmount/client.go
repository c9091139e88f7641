package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"objectmount/objects"
)

// maxKeyFile bounds a key file: a key is some dozens of bytes.
const maxKeyFile = 4096

// client makes the API client of a command, or says which key is missing and
// where it was looked for.
func (a *app) client() (*objects.Client, error) {
	key, err := a.apiKey()
	if err != nil {
		return nil, err
	}
	if key == "" {
		return nil, hinted{
			fmt.Errorf("no API key: %w", objects.ErrCredentials),
			"set RUNLOOP_API_KEY, or name a file with --api-key-file",
		}
	}
	base := a.baseURL
	if base == "" {
		base = os.Getenv("RUNLOOP_BASE_URL")
	}
	return objects.New(objects.Options{
		BaseURL:   base,
		Key:       key,
		Timeout:   a.timeout,
		UserAgent: "objectmount/" + version(),
	})
}

// apiKey looks for the key in the order flag, environment, credential of the
// service manager, configuration file. Never in an argument: the command line
// of a process can be read by everyone.
func (a *app) apiKey() (objects.Secret, error) {
	if a.keyFile != "" {
		return readKeyFile(a.keyFile)
	}
	if v := strings.TrimSpace(os.Getenv("RUNLOOP_API_KEY")); v != "" {
		return objects.Secret(v), nil
	}
	var files []string
	if dir := os.Getenv("CREDENTIALS_DIRECTORY"); dir != "" {
		files = append(files, filepath.Join(dir, "api-key"))
	}
	files = append(files, filepath.Join(defaultPlaces().config, "api-key"))
	for _, name := range files {
		key, err := readKeyFile(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		return key, err
	}
	return "", nil
}

// readKeyFile reads the key alone in a file. A file that others may read is
// refused: a key that leaked must be noticed, not used.
func readKeyFile(name string) (objects.Secret, error) {
	f, err := os.Open(name)
	if err != nil {
		return "", fmt.Errorf("read API key: %w", err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return "", fmt.Errorf("read API key: %w", err)
	}
	if st.Mode().IsRegular() && st.Mode().Perm()&0o007 != 0 {
		return "", hinted{fmt.Errorf("API key file %s can be read by everyone", name), "chmod 600 " + name}
	}
	b, err := io.ReadAll(io.LimitReader(f, maxKeyFile+1))
	if err != nil {
		return "", fmt.Errorf("read API key: %w", err)
	}
	key := strings.TrimSpace(string(b))
	if key == "" || len(b) > maxKeyFile || strings.ContainsAny(key, " \t\r\n") {
		return "", fmt.Errorf("API key file %s must hold the key alone, on one line", name)
	}
	return objects.Secret(key), nil
}
