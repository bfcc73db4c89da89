package sealfs

import (
	"syscall"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// inodeOf returns what Windows has for an inode, or none if a file is not the operating system's.
func inodeOf(u vfs.File) (inode, error) {
	fd := u.Fd()
	if fd == vfs.InvalidFd {
		return inode{}, nil
	}
	var d syscall.ByHandleFileInformation
	if err := syscall.GetFileInformationByHandle(syscall.Handle(fd), &d); err != nil {
		return inode{}, err
	}
	return inode{uint64(d.VolumeSerialNumber), uint64(d.FileIndexHigh)<<32 | uint64(d.FileIndexLow)}, nil
}
