//go:build unix

package sealfs

import (
	"syscall"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// inodeOf returns the inode of a file, or none if it is not the operating system's.
func inodeOf(u vfs.File) (inode, error) {
	fi, err := u.Stat()
	if err != nil {
		return inode{}, err
	}
	if s, ok := fi.Sys().(*syscall.Stat_t); ok {
		return inode{uint64(s.Dev), uint64(s.Ino)}, nil
	}
	return inode{}, nil
}
