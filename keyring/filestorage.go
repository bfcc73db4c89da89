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
// The files can be read and written by one user alone, whose the processes have to be: Swap makes
// them with mode 0600. A reader that may not open the directory does not make durable what
// it finds there after a crash of the writer.
//
// The lock belongs to the name: a symbolic link to the file, and a hard link, would have another,
// and are refused, by Load too; so is what is no regular file. Nobody may remove the lock's file
// while a process runs: Swap refuses if it finds that somebody has, but cannot see it in time
// always. Windows refuses to rename over a file that somebody reads, which Swap tries for a second,
// may refuse to open one that is being replaced, which Load returns, and does not say when a name is
// durable. On
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
	info, err := os.Lstat(string(f))
	if err == nil && info.Mode().IsRegular() && links(info) > 1 {
		return nil, fmt.Errorf("keyring: %s: it has %d names, each with a lock of its own; remove the other hard links, or make them copies", string(f), links(info))
	}
	b, err := readFile(string(f), maxDocument)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		err = ErrNoDocument
	case err == nil && len(b) > maxDocument:
		err = corrupt("it has more than %d bytes, the most that a document has", maxDocument)
	}
	if err != nil {
		return nil, fmt.Errorf("keyring: %s: %w", string(f), err)
	}
	return b, nil
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
	if err := lock.still(); err != nil {
		return "", fmt.Errorf("keyring: %s: %w", string(f), err)
	}
	if err := replaceFile(string(f), document); err != nil {
		return "", err
	}
	return ContentRevision(document), nil
}
