package sealfs

import (
	"errors"
	"fmt"

	"github.com/blockseal/blockseal/keyring"
)

// ErrStopped says that [FS.Stop] was called. The cause that Stop was given is beneath it.
var ErrStopped = errors.New("the file system was stopped")

// ErrNotSealed says that a file is not one that this package wrote: it has no head. It matches
// [keyring.ErrCorrupt] as well, because a head that was overwritten looks no different.
var ErrNotSealed = fmt.Errorf("not a sealed file: %w", keyring.ErrCorrupt)

// errNoLink is why a log or a file of pages gets no second name: whoever copies it in its place,
// as Pebble does, gives the copy a DEK of its own.
var errNoLink = errors.New("only files of layout once that are not being written can be linked; copy it")

// corrupt is damage in a file.
func corrupt(name, format string, args ...any) error {
	return fmt.Errorf("sealfs: %s: %s: %w", name, fmt.Sprintf(format, args...), keyring.ErrCorrupt)
}

// ofFile names the file in an error of the keyring's.
func ofFile(name string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("sealfs: %s: %w", name, err)
}
