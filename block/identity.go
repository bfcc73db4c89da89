package block

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strconv"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// The identity file, in a store's directory beside the engine's files. Text, one
// field a line; on disk, and must not change.
//
//	blockseal store 1
//	instance 0123456789abcdef0123456789abcdef
//	copy of fedcba9876543210fedcba9876543210
//
// The number is the version of the directory's layout. The instance tells a store
// from its copies. The third line is there in a copy that has not been
// revalidated yet. The file is written first, so that a directory without it is
// not a store, and nothing in it is believed when it comes to keys.
const (
	identityName    = "BLOCKSEAL"
	identityHead    = "blockseal store "
	identityVersion = 1
	maxIdentity     = 256
)

// identity is the content of an identity file.
type identity struct {
	instance instanceID
	copyOf   instanceID // zero: not a copy, or one that was revalidated
}

type instanceID [16]byte

func newInstance() (id instanceID) {
	rand.Read(id[:])
	return id
}

func (id instanceID) String() string { return hex.EncodeToString(id[:]) }

func (i identity) encode() []byte {
	s := fmt.Sprintf("%s%d\ninstance %v\n", identityHead, identityVersion, i.instance)
	if i.copyOf != (instanceID{}) {
		s += fmt.Sprintf("copy of %v\n", i.copyOf)
	}
	return []byte(s)
}

func decodeIdentity(b []byte) (i identity, err error) {
	bad := func(what string) (identity, error) {
		return identity{}, fmt.Errorf("block: the file %s %s: %w", identityName, what, ErrCorrupt)
	}
	lines := strings.Split(string(b), "\n")
	number, ok := strings.CutPrefix(lines[0], identityHead)
	if !ok {
		return bad("does not start with \"" + identityHead + "\"")
	}
	if v, err := strconv.ParseUint(number, 10, 32); err != nil || strconv.FormatUint(v, 10) != number {
		return bad("has no version")
	} else if v != identityVersion {
		return identity{}, fmt.Errorf("block: the store has layout version %d, this release reads %d: %w", v, identityVersion, ErrVersion)
	}
	if len(lines) < 3 || lines[len(lines)-1] != "" || len(lines) > 4 {
		return bad("is cut off, or has lines that do not belong")
	}
	if !parseInstance(lines[1], "instance ", &i.instance) {
		return bad("has no instance")
	}
	if len(lines) == 4 && !parseInstance(lines[2], "copy of ", &i.copyOf) {
		return bad("does not say what it is a copy of")
	}
	return i, nil
}

func parseInstance(line, prefix string, id *instanceID) bool {
	digits, ok := strings.CutPrefix(line, prefix)
	if !ok || len(digits) != 2*len(id) || strings.ToLower(digits) != digits {
		return false
	}
	_, err := hex.Decode(id[:], []byte(digits))
	return err == nil && *id != (instanceID{})
}

// readIdentity reads a directory's identity. found is false for a directory that
// does not exist or is empty, where a store may be created; anything else without
// an identity file is not a store.
func readIdentity(fsys vfs.FS, dir string) (id identity, found bool, err error) {
	names, err := fsys.List(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return id, false, nil
	}
	if err != nil {
		return id, false, fmt.Errorf("block: %w", err)
	}
	if !slices.Contains(names, identityName) {
		for _, n := range names {
			// What a creation leaves that was cut off before the identity was written.
			if n != "LOCK" && n != identityName+".new" {
				return id, false, fmt.Errorf("block: %s has files and no %s: %w", dir, identityName, ErrNotStore)
			}
		}
		return id, false, nil
	}
	f, err := fsys.Open(fsys.PathJoin(dir, identityName))
	if err != nil {
		return id, false, fmt.Errorf("block: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxIdentity+1))
	if err != nil {
		return id, false, fmt.Errorf("block: %w", err)
	}
	if len(b) > maxIdentity {
		return id, false, fmt.Errorf("block: the file %s has more than %d bytes: %w", identityName, maxIdentity, ErrCorrupt)
	}
	id, err = decodeIdentity(b)
	return id, err == nil, err
}

// writeIdentity writes a directory's identity durably and atomically.
func writeIdentity(fsys vfs.FS, dir string, id identity) error {
	path, tmp := fsys.PathJoin(dir, identityName), fsys.PathJoin(dir, identityName+".new")
	f, err := fsys.Create(tmp, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	_, err = f.Write(id.encode())
	err = errors.Join(err, f.Sync(), f.Close())
	if err != nil {
		return err
	}
	if err := fsys.Rename(tmp, path); err != nil {
		return err
	}
	d, err := fsys.OpenDir(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// makeDir makes a directory and those above it that are missing, and makes each
// durable in the one that it is in: a store that was acknowledged must not vanish
// with its directory.
func makeDir(fsys vfs.FS, dir string) error {
	var missing []string
	for d := dir; ; d = fsys.PathDir(d) {
		if _, err := fsys.Stat(d); err == nil || !errors.Is(err, fs.ErrNotExist) || d == fsys.PathDir(d) {
			break
		}
		missing = append(missing, d)
	}
	if err := fsys.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	for _, d := range missing {
		parent, err := fsys.OpenDir(fsys.PathDir(d))
		if err != nil {
			return err
		}
		if err := errors.Join(parent.Sync(), parent.Close()); err != nil {
			return err
		}
	}
	return nil
}
