package keyring

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// FileStorage returns a Storage in one file, which keyrings of any number of processes of
// one machine can share. A Swap holds the lock of the file path.lock, for which it waits as
// long as its context allows; compares the document that is there with the one that it is to
// replace; writes path.new, syncs it, renames it over the old and syncs the directory. It
// leaves the lock's file behind, empty, and after a crash path.new. A process that dies loses
// the lock with everything else. Load takes no lock: it finds the old file or the new one.
//
// The lock belongs to the name: a link to the file would have another, and is refused. On
// the file system of a server the lock is worth what the server's are: flock on Linux is
// passed on by NFS from version 4, and is local to the machine in versions before. On
// operating systems without a lock that ends with its process (others than Linux, macOS, the
// BSDs and Windows), Swap returns an error that matches [errors.ErrUnsupported].
func FileStorage(path string) Storage { return fileStorage(filepath.Clean(path)) }

type fileStorage string

// Load implements [Storage].
func (f fileStorage) Load(ctx context.Context) ([]byte, Revision, error) {
	if err := ctx.Err(); err != nil {
		return nil, "", err
	}
	b, err := f.read()
	if err != nil {
		return nil, "", err
	}
	// A process that was killed in Swap may have renamed the file and not synced that.
	if err := syncDir(filepath.Dir(string(f))); err != nil && !errors.Is(err, fs.ErrPermission) {
		return nil, "", err
	}
	return b, ContentRevision(b), nil
}

func (f fileStorage) read() ([]byte, error) {
	b, err := os.ReadFile(string(f))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("keyring: %s: %w", string(f), ErrNoDocument)
	}
	return b, err
}

// Swap implements [Storage].
func (f fileStorage) Swap(ctx context.Context, was Revision, document []byte) (now Revision, err error) {
	lock, err := lockFile(ctx, string(f)+".lock")
	if err != nil {
		return "", err
	}
	defer func() {
		if e := lock.Close(); e != nil { // the document is what the error before says
			now, err = "", errors.Join(err, e)
		}
	}()
	if info, err := os.Lstat(string(f)); err == nil && info.Mode()&fs.ModeSymlink != 0 {
		return "", fmt.Errorf("keyring: %s is a link; give the path of the file itself", string(f))
	}
	before, err := f.read()
	switch {
	case err == nil:
		now = ContentRevision(before)
	case !errors.Is(err, ErrNoDocument):
		return "", err
	}
	if now != was {
		return "", fmt.Errorf("keyring: %s: %w", string(f), ErrConflict)
	}
	if err := replaceFile(string(f), document); err != nil {
		return "", err
	}
	return ContentRevision(document), nil
}
