package local

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"
)

// A vault's directory:
//
//	vault      the vault file; see format.go
//	vault.tmp  the next one, while it is written; of no meaning otherwise
//	lock       locked by the process that changes the vault, empty
//
// The vault file is never written in place: a change writes vault.tmp whole,
// syncs it, renames it to vault and syncs the directory. Whoever reads, with no
// lock, finds the old file or the new one; whoever dies on the way leaves the old
// one or the new one.
const (
	vaultName = "vault"
	tempName  = "vault.tmp"
	lockName  = "lock"
)

// step is a point on the way of a change. Tests stop there, or kill the process.
type step string

const (
	stepLocked  step = "locked"
	stepCreate  step = "create the temporary file"
	stepWrite   step = "write the temporary file"
	stepSync    step = "sync the temporary file"
	stepRename  step = "rename it to the vault file"
	stepSyncDir step = "sync the directory"
	stepDone    step = "done"
)

// steps lists them in order.
func steps() []step {
	return []step{stepLocked, stepCreate, stepWrite, stepSync, stepRename, stepSyncDir, stepDone}
}

// directory is the vault's directory and what is done to its files.
type directory struct {
	path string
	fs   files
	hook func(step) error // before each step; nil outside of tests
}

func (d *directory) file() string { return filepath.Join(d.path, vaultName) }

func (d *directory) at(s step) error {
	if d.hook == nil {
		return nil
	}
	return d.hook(s)
}

// lock waits for the lock for as long as wait and ctx allow.
func (d *directory) lock(ctx context.Context, wait time.Duration) (io.Closer, error) {
	const pause = 5 * time.Millisecond
	deadline := time.Now().Add(wait)
	for {
		l, err := tryLock(filepath.Join(d.path, lockName))
		if !errors.Is(err, ErrLocked) {
			if err == nil {
				if err = d.at(stepLocked); err != nil {
					return nil, errors.Join(err, l.Close())
				}
			}
			return l, err
		}
		if left := time.Until(deadline); left <= 0 {
			return nil, fmt.Errorf("%s: waited %v: %w", filepath.Join(d.path, lockName), max(wait, 0), ErrLocked)
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(pause):
		}
	}
}

// errUncertain says that a change was made and may not survive a crash of the machine.
var errUncertain = errors.New("the change was made, but a crash of the machine may undo it")

// replace makes b the vault file. The caller holds the lock.
func (d *directory) replace(b []byte) (err error) {
	temp := filepath.Join(d.path, tempName)
	if err := d.at(stepCreate); err != nil {
		return err
	}
	f, err := d.fs.create(temp)
	if err != nil {
		return err
	}
	if err := d.fill(f, b); err != nil {
		return errors.Join(err, f.Close(), os.Remove(temp))
	}
	if err := f.Close(); err != nil {
		return errors.Join(err, os.Remove(temp))
	}
	if err := d.at(stepRename); err != nil {
		return errors.Join(err, os.Remove(temp))
	}
	if err := d.fs.rename(temp, d.file()); err != nil {
		return errors.Join(err, os.Remove(temp))
	}
	if err := d.at(stepSyncDir); err != nil {
		return fmt.Errorf("%w: %w", errUncertain, err)
	}
	if err := d.fs.syncDir(d.path); err != nil {
		return fmt.Errorf("%w: %w", errUncertain, err)
	}
	return d.at(stepDone)
}

func (d *directory) fill(f file, b []byte) error {
	if err := d.at(stepWrite); err != nil {
		return err
	}
	if _, err := f.Write(b); err != nil {
		return err
	}
	if err := d.at(stepSync); err != nil {
		return err
	}
	return f.Sync()
}

// read opens and reads the vault file. The file is returned open.
func (d *directory) read() (f *os.File, info os.FileInfo, b []byte, err error) {
	f, err = os.Open(d.file())
	if err != nil {
		return nil, nil, nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close())
		}
	}()
	if info, err = f.Stat(); err != nil {
		return f, nil, nil, err
	}
	if !info.Mode().IsRegular() {
		return f, nil, nil, fmt.Errorf("%s is not a regular file: %w", d.file(), ErrNotVault)
	}
	if info.Size() > maxVault {
		return f, nil, nil, corrupt("%s has %d bytes, the most is %d", d.file(), info.Size(), maxVault)
	}
	b, err = io.ReadAll(io.LimitReader(f, maxVault+1))
	return f, info, b, err
}
