package systemd

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// maxExposure is ten times the worst score that systemd-analyze security may
// give the unit: 4.4, where a unit without hardening has 9.6.
const maxExposure = "44"

// analyze runs systemd-analyze, without which the unit file would go
// unchecked: where it is missing the test fails in CI and is skipped at home.
func analyze(t *testing.T, args ...string) string {
	t.Helper()
	exe, err := exec.LookPath("systemd-analyze")
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("systemd-analyze is missing: install the package systemd")
		}
		t.Skip("systemd-analyze is missing: install the package systemd")
	}
	out, err := exec.Command(exe, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("systemd-analyze %s: %v\n%s", args[0], err, out)
	}
	return string(out)
}

// unitFile writes the unit where systemd-analyze can read it, with a program
// that exists on every machine in the place of ours.
func unitFile(t *testing.T) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if strings.Count(Unit, "ExecStart=/usr/bin/objectmount ") != 1 {
		t.Fatal("ExecStart= of the unit is not what this test replaces")
	}
	text := strings.Replace(Unit, "/usr/bin/objectmount ", self+" ", 1)
	name := filepath.Join(t.TempDir(), "objectmount.service")
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestUnitIsValid(t *testing.T) {
	name := unitFile(t)
	// Warnings about other units of the machine are none of ours.
	for line := range strings.Lines(analyze(t, "verify", "--man=no", name)) {
		if strings.Contains(line, "objectmount") {
			t.Error(strings.TrimSpace(line))
		}
	}
}

func TestVerifyNotices(t *testing.T) {
	name := unitFile(t)
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	bad := strings.Replace(string(b), "LockPersonality=yes", "LockPersonalty=yes", 1)
	if err := os.WriteFile(name, []byte(bad), 0o644); err != nil {
		t.Fatal(err)
	}
	if out := analyze(t, "verify", "--man=no", name); !strings.Contains(out, "LockPersonalty") {
		t.Errorf("a misspelt setting went unnoticed:\n%s", out)
	}
}

func TestUnitIsHardened(t *testing.T) {
	out := analyze(t, "security", "--no-pager", "--offline=true", "--threshold="+maxExposure, unitFile(t))
	if !strings.Contains(out, "Overall exposure level") {
		t.Errorf("no score in:\n%s", out)
	}
}

// TestNothingHidesMounts holds the settings against the list of those that
// were found to make a service's mounts invisible to the rest of the system,
// or to show extraction another tree than everyone else's.
func TestNothingHidesMounts(t *testing.T) {
	hides := regexp.MustCompile(`(?m)^(PrivateTmp|ProtectSystem|ProtectHome|PrivateMounts|MountFlags|ProtectKernelTunables|` +
		`ProtectKernelModules|ProtectKernelLogs|ProtectControlGroups|ProtectProc|ProcSubset|ReadOnlyPaths|InaccessiblePaths|` +
		`TemporaryFileSystem|LogNamespace|PrivateDevices|PrivateUsers|DynamicUser|RootDirectory|BindPaths)=`)
	if found := hides.FindAllString(Unit, -1); found != nil {
		t.Errorf("the unit sets %v", found)
	}
	if !regexp.MustCompile(`(?m)^SystemCallFilter=.*@mount`).MatchString(Unit) {
		t.Error("the system call filter does not allow @mount")
	}
}
