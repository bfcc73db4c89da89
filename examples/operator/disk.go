package main

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
)

// disk is what this tool does to files of its own that must survive a crash of the
// machine: secrets, receipts, heads, the list of stores. Tests put another in the place
// of system, which watches whether all of it is synced.
type disk interface {
	open(path string, flags int, mode os.FileMode) (diskFile, error)
	rename(from, to string) error
	syncDir(dir string) error // makes the names in it durable
}

// diskFile is what a [disk] needs of an [*os.File].
type diskFile interface {
	io.WriteCloser
	Sync() error
}

// system is the operating system's disk.
type system struct{}

func (system) open(path string, flags int, mode os.FileMode) (diskFile, error) {
	return os.OpenFile(path, flags, mode)
}

func (system) rename(from, to string) error { return os.Rename(from, to) }

func (system) syncDir(dir string) error {
	if runtime.GOOS == "windows" {
		return nil // directories cannot be synced there
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// replaceFile puts a file with data in the place of the one at path, if there is one.
// Whatever happens, one of the two is there, whole.
func (a *app) replaceFile(path string, data []byte, mode os.FileMode) error {
	path = filepath.Clean(path)
	temp := path + ".new"
	f, err := a.disk.open(temp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, mode)
	if err != nil {
		return err
	}
	if _, err = f.Write(data); err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = a.disk.rename(temp, path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(temp))
	}
	return a.disk.syncDir(filepath.Dir(path))
}

// keepSecret puts what fetch returns into a new file that only its owner can read,
// clears it, and returns its size. It replaces nothing. The file is there, empty, before
// fetch begins, so that nothing is fetched that cannot be kept; and nothing is in it
// before fetch has recorded that it was fetched. It is gone if anything fails.
func (a *app) keepSecret(path string, fetch func() ([]byte, error)) (size int, err error) {
	path = filepath.Clean(path)
	f, err := a.disk.open(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return 0, err
	}
	data, err := fetch()
	defer clear(data)
	if err == nil {
		_, err = f.Write(data)
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = a.disk.syncDir(filepath.Dir(path))
	}
	if err != nil {
		return 0, errors.Join(err, os.Remove(path))
	}
	return len(data), nil
}

// writeSecret is keepSecret for what is there already; it clears data.
func (a *app) writeSecret(path string, data []byte) error {
	_, err := a.keepSecret(path, func() ([]byte, error) { return data, nil })
	return err
}
