package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

// describeMachine says where and how the figures come to be. What cannot be found out is
// left out.
func describeMachine(ctx context.Context, o options) string {
	var b strings.Builder
	line := func(name, value string) {
		if value != "" {
			fmt.Fprintf(&b, "%-9s%s\n", name, value)
		}
	}
	line("cpu", field("/proc/cpuinfo", ":", "model name"))
	line("cores", fmt.Sprintf("%d, GOMAXPROCS %d", runtime.NumCPU(), runtime.GOMAXPROCS(0)))
	line("memory", memory())
	line("os", strings.Trim(field("/etc/os-release", "=", "PRETTY_NAME"), `"`))
	if v, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		line("kernel", strings.TrimSpace(string(v)))
	}
	line("go", runtime.Version()+" "+runtime.GOOS+"/"+runtime.GOARCH)
	if rev, err := exec.CommandContext(ctx, "git", "describe", "--always", "--dirty").Output(); err == nil {
		line("commit", strings.TrimSpace(string(rev)))
	}
	line("date", time.Now().UTC().Format("2006-01-02 15:04 UTC"))
	line("command", strings.TrimSpace("go -C bench run ./report "+strings.Join(o.args, " ")))
	line("rounds", fmt.Sprintf("%d, each benchmark for %s", o.rounds, o.benchtime))
	return b.String()
}

func memory() string {
	var kb float64
	if _, err := fmt.Sscanf(field("/proc/meminfo", ":", "MemTotal"), "%f kB", &kb); err != nil {
		return ""
	}
	return fmt.Sprintf("%.1f GiB", kb/(1<<20))
}

// field returns the first value of a name in a file of names and values, or "".
func field(file, separator, name string) string {
	b, err := os.ReadFile(file)
	if err != nil {
		return ""
	}
	for l := range strings.Lines(string(b)) {
		if k, v, ok := strings.Cut(l, separator); ok && strings.TrimSpace(k) == name {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

// machinesBeside returns what machine.txt says beside each of some raw outputs.
func machinesBeside(files []string) string {
	var found []string
	seen := map[string]bool{}
	for _, f := range files {
		name := filepath.Join(filepath.Dir(f), "machine.txt")
		if b, err := os.ReadFile(name); err == nil && !seen[name] {
			found = append(found, string(b))
		}
		seen[name] = true
	}
	return strings.Join(found, "\n")
}
