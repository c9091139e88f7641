package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// envName is the environment variable of a flag: --state-dir is
// OBJECTMOUNT_STATE_DIR.
func envName(flag string) string {
	return "OBJECTMOUNT_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// applyEnv sets every flag that was not given on the command line from its
// variable. An empty variable counts as not set. The order is flag,
// environment, file, default; files are read where a setting is used.
func applyEnv(cmd *cobra.Command) error {
	var first error
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if f.Changed || f.Name == "help" || f.Name == "version" || first != nil {
			return
		}
		if v := os.Getenv(envName(f.Name)); v != "" {
			if err := cmd.Flags().Set(f.Name, v); err != nil {
				first = usagef("%s: %v", envName(f.Name), err)
			}
		}
	})
	return first
}

// places are the directories the program uses, for root and for other users.
type places struct{ config, state, run, serve, cache string }

// defaultPlaces follows the file system hierarchy for root and the XDG base
// directories for everyone else. Under systemd the manager's own choice wins
// ($STATE_DIRECTORY and friends, a colon-separated list: its first entry).
func defaultPlaces() places {
	p := places{"/etc/objectmount", "/var/lib/objectmount", "/run/objectmount", "/var/lib/objectmount-serve", "/var/cache/objectmount"}
	if os.Geteuid() != 0 {
		home, err := os.UserHomeDir()
		if err != nil {
			home = filepath.Join(os.TempDir(), fmt.Sprintf("objectmount-%d", os.Getuid()))
		}
		xdg := func(name, fallback string) string {
			if v := os.Getenv(name); filepath.IsAbs(v) {
				return v
			}
			return filepath.Join(home, fallback)
		}
		p.config = filepath.Join(xdg("XDG_CONFIG_HOME", ".config"), "objectmount")
		p.state = filepath.Join(xdg("XDG_STATE_HOME", ".local/state"), "objectmount")
		p.cache = filepath.Join(xdg("XDG_CACHE_HOME", ".cache"), "objectmount")
		p.serve = filepath.Join(xdg("XDG_DATA_HOME", ".local/share"), "objectmount-serve")
		p.run = filepath.Join(xdg("XDG_RUNTIME_DIR", ".local/state"), "objectmount")
		if os.Getenv("XDG_RUNTIME_DIR") == "" {
			p.run = filepath.Join(p.state, "run")
		}
	}
	for _, m := range []struct {
		env string
		dst *string
	}{{"STATE_DIRECTORY", &p.state}, {"RUNTIME_DIRECTORY", &p.run}, {"CONFIGURATION_DIRECTORY", &p.config}, {"CACHE_DIRECTORY", &p.cache}} {
		if v, _, _ := strings.Cut(os.Getenv(m.env), ":"); filepath.IsAbs(v) {
			*m.dst = v
		}
	}
	return p
}
