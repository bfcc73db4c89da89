package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
)

// blockSize is the size of a block in bytes; the last one of a file is shorter. An
// empty file is one empty block.
const blockSize = 64 << 10

// tree is the regular files under a directory. Links and devices are left out.
type tree struct {
	dir   string
	files []string // relative to dir, with slashes
	bytes int64
}

// findTree lists the files under dir, or, without one, of the Go toolchain's source.
func findTree(ctx context.Context, dir string) (*tree, error) {
	if dir == "" {
		var err error
		if dir, err = goSource(ctx); err != nil {
			return nil, fmt.Errorf("cannot find the Go toolchain's source code: %w; give another directory with -in", err)
		}
	}
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("-in: there is no directory %s", dir)
	case err != nil:
		return nil, fmt.Errorf("-in: %w", err)
	case !info.IsDir():
		return nil, fmt.Errorf("-in: %s is not a directory", dir)
	}
	// WalkDir does not follow a link, not even the one it is given.
	if dir, err = filepath.EvalSymlinks(dir); err != nil {
		return nil, fmt.Errorf("-in: %w", err)
	}
	t := &tree{dir: dir}
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err = errors.Join(err, ctx.Err()); err != nil || !d.Type().IsRegular() {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		t.files = append(t.files, filepath.ToSlash(rel))
		t.bytes += info.Size()
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("-in: %w", err)
	}
	if len(t.files) == 0 {
		return nil, fmt.Errorf("-in: there are no files in %s", dir)
	}
	return t, nil
}

// goSource asks the go command. GOTOOLCHAIN=local keeps that from downloading
// another toolchain, which a module in the current directory may ask for.
func goSource(ctx context.Context) (string, error) {
	cmd := exec.CommandContext(ctx, "go", "env", "GOROOT")
	cmd.Dir = os.TempDir()
	cmd.Env = append(os.Environ(), "GOTOOLCHAIN=local", "GOWORK=off", "PWD="+cmd.Dir)
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("go env GOROOT: %w", err)
	}
	dir := filepath.Join(string(bytes.TrimSpace(out)), "src")
	_, err = os.Stat(dir)
	return dir, err
}

// path is where a file of the tree lies.
func (t *tree) path(file string) string { return filepath.Join(t.dir, filepath.FromSlash(file)) }

// blocks calls f for each block of each file, with its id. data is valid until f
// returns.
func (t *tree) blocks(f func(id string, data []byte) error) error {
	buf := make([]byte, blockSize)
	for _, name := range t.files {
		if err := t.blocksOf(name, buf, f); err != nil {
			return err
		}
	}
	return nil
}

func (t *tree) blocksOf(name string, buf []byte, f func(id string, data []byte) error) error {
	file, err := os.Open(t.path(name))
	if err != nil {
		return err
	}
	defer file.Close()
	for n := 0; ; n++ {
		got, err := io.ReadFull(file, buf)
		last := errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
		if err != nil && !last {
			return err
		}
		if got > 0 || n == 0 {
			if err := f(blockID(name, n), buf[:got]); err != nil {
				return err
			}
		}
		if last {
			return nil
		}
	}
}

// blockID is the id of a file's n-th block: the number has a fixed width, so that
// a file's blocks follow one another in the order of ids.
func blockID(file string, n int) string { return fmt.Sprintf("%s#%08d", file, n) }
