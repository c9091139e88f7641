package main

import (
	"archive/tar"
	"compress/gzip"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// makeFiles makes one file of every kind that a mount treats in its own way.
func (d *demo) makeFiles() error {
	src := d.path("src")
	if err := os.MkdirAll(filepath.Join(src, "dataset", "parts"), 0o755); err != nil {
		return err
	}
	for name, content := range map[string]string{
		"note.txt":              "Objects become files.\n",
		"dataset/readme.md":     "# A directory, packed on the way up\n",
		"dataset/parts/one.csv": strings.Repeat("1,2,3\n", 500),
		"dataset/cache.tmp":     "left out by .dockerignore\n",
		"dataset/.dockerignore": "*.tmp\n",
	} {
		if err := os.WriteFile(filepath.Join(src, name), []byte(content), 0o644); err != nil {
			return err
		}
	}
	if err := d.compressed("log.txt.gz", func(w io.Writer) error {
		_, err := io.WriteString(w, strings.Repeat("ready\n", 1000))
		return err
	}); err != nil {
		return err
	}
	site := []tar.Header{
		{Name: "index.html", Mode: 0o644, Typeflag: tar.TypeReg},
		{Name: "assets/", Mode: 0o755, Typeflag: tar.TypeDir},
		{Name: "assets/style.css", Mode: 0o644, Typeflag: tar.TypeReg},
		{Name: "latest.html", Linkname: "index.html", Typeflag: tar.TypeSymlink, Mode: 0o777},
	}
	f, err := os.Create(filepath.Join(src, "site.tar"))
	if err != nil {
		return err
	}
	if err := writeTar(f, site); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	tool := []tar.Header{
		{Name: "./", Mode: 0o755, Typeflag: tar.TypeDir},
		{Name: "./bin/run", Mode: 0o755, Typeflag: tar.TypeReg},
		{Name: "./bin/run-again", Linkname: "./bin/run", Typeflag: tar.TypeLink, Mode: 0o755},
	}
	return d.compressed("tool.tgz", func(w io.Writer) error { return writeTar(w, tool) })
}

// compressed writes a gzip file into the source directory.
func (d *demo) compressed(name string, fill func(io.Writer) error) error {
	f, err := os.Create(d.path("src", name))
	if err != nil {
		return err
	}
	defer f.Close()
	zw := gzip.NewWriter(f)
	if err := fill(zw); err != nil {
		return err
	}
	if err := zw.Close(); err != nil {
		return err
	}
	return f.Close()
}

// writeTar writes entries whose content is their own name.
func writeTar(w io.Writer, entries []tar.Header) error {
	tw := tar.NewWriter(w)
	for _, h := range entries {
		content := ""
		if h.Typeflag == tar.TypeReg {
			content = "#!/bin/sh\necho " + h.Name + "\n"
		}
		h.Size, h.ModTime = int64(len(content)), time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
		if err := tw.WriteHeader(&h); err != nil {
			return err
		}
		if _, err := io.WriteString(tw, content); err != nil {
			return err
		}
	}
	return tw.Close()
}

// tree prints what is below a directory: mode, size and name of each entry.
func (d *demo) tree(root string) error {
	return filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil || path == root {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		line := fmt.Sprintf("    %s %6d  box/%s", info.Mode(), info.Size(), rel)
		if e.Type()&fs.ModeSymlink != 0 {
			to, err := os.Readlink(path)
			if err != nil {
				return err
			}
			line += " -> " + to
		}
		fmt.Fprintln(d.out, line)
		return nil
	})
}
