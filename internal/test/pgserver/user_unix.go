//go:build unix

package pgserver

import (
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
)

// other returns the user that the server runs as where the caller is root.
func other() (cred *syscall.Credential, err error) {
	for _, name := range []string{"postgres", "nobody"} {
		u, e := user.Lookup(name)
		if e != nil {
			err = e
			continue
		}
		uid, _ := strconv.ParseUint(u.Uid, 10, 32)
		gid, _ := strconv.ParseUint(u.Gid, 10, 32)
		return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
	}
	return nil, fmt.Errorf("PostgreSQL does not run for root, and there is no other user: %w", err)
}

// asOther has a command run as that user.
func asOther(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // not ended by a terminal's interrupt
	if os.Geteuid() == 0 {
		if c, err := other(); err == nil {
			cmd.SysProcAttr.Credential = c
		}
	}
}

// passable reports whether that user comes by what is in a directory.
func passable(dir string) bool {
	if os.Geteuid() != 0 {
		return true
	}
	for {
		info, err := os.Stat(dir)
		if err != nil || info.Mode()&1 == 0 {
			return false
		}
		up := filepath.Dir(dir)
		if up == dir {
			return true
		}
		dir = up
	}
}

// giveAway gives that user a directory. The caller keeps its way into it.
func giveAway(dir string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	c, err := other()
	if err != nil {
		return err
	}
	return os.Chown(dir, int(c.Uid), int(c.Gid))
}
